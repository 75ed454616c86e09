"""Requests that are asked of two versions once more, to compare their answers."""
