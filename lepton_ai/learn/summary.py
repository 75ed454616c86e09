"""A model as a table."""

from __future__ import annotations

import math

from lepton_ai.learn.config import ModelConfig
from lepton_ai.learn.layers import layer_name

__all__ = ["summarize"]


def summarize(config: ModelConfig) -> str:
    """Layers, output shapes and numbers of weights, one layer a line."""
    import torch

    from lepton_ai.learn.network import build_module

    with torch.device("meta"):
        weights = build_module(config, seed=0).layers.named_parameters()
    counts: dict[str, int] = {}
    for path, weight in weights:
        layer = path.split(".")[0]
        counts[layer] = counts.get(layer, 0) + math.prod(weight.shape)
    rows = [("layer", "output shape", "weights")]
    for position, layer in enumerate(config.layers, start=1):
        name = f"{layer_name(layer)}_{position}"
        rows.append((name, str(config.shapes[position]), str(counts.get(name, 0))))
    rows.append(("total", "", str(sum(counts.values()))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {shape:<{widths[1]}}  {count:>{widths[2]}}"
        for name, shape, count in rows
    )
