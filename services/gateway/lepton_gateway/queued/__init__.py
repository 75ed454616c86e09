"""Inference requests that wait in a queue, and how their answers are had."""
