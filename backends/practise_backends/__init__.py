"""The device half: compile ONNX networks for a device and measure them in paired rounds."""

__version__ = "0.1.0"
