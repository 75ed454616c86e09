"""Decides what runs where."""

# It comes before gRPC.
import lepton_runtime  # noqa: F401 # pyright: ignore[reportUnusedImport]
