"""Drills: a cluster of its own is hurt on purpose, and what must hold is checked and measured."""
