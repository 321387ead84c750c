"""Networks that come as ONNX files: read, translated to torch, held against ONNX Runtime, and written back as they were."""
