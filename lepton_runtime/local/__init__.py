"""A whole cluster on one machine: every service as a child process on loopback."""
