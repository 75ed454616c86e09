"""Headers that the gateway adds to requests for the inference servers behind it."""

from __future__ import annotations

from typing import Final

__all__ = ["VERSION_HEADER"]

VERSION_HEADER: Final = "lepton-version"
"""The version that was chosen for a request that names none."""
