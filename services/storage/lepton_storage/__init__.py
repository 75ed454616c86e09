"""Objects on replicated disks, and the datasets and models that refer to them."""

# It comes before gRPC.
import lepton_runtime  # noqa: F401 # pyright: ignore[reportUnusedImport]
