"""Fails on one rank, of its own doing."""

import os

if os.environ["RANK"] == "1":
    raise ValueError("the fault of rank 1")
