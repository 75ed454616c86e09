"""A cluster as its users see it. See `Cluster`, and `AsyncCluster` for asyncio."""
