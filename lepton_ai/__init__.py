"""Lepton: train a torch model across nodes, keep it on replicated storage, serve it as ONNX."""
