"""Trains and serves what is placed on its node."""

# It comes before gRPC.
import lepton_runtime  # noqa: F401 # pyright: ignore[reportUnusedImport]
