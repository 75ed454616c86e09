"""What Envoy is told, as pure documents, and the process that runs it."""
