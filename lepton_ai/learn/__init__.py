"""The learning library: declarative layers in, a plain `torch.nn.Module` out."""
