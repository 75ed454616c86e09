"""The inference server: ONNX models behind the Open Inference Protocol, in a process of its own."""
