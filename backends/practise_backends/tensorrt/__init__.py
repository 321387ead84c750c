"""TensorRT: the backends `trt` and `trt-rtx`."""

from practise_backends.tensorrt.backend import TensorRtBackend, TensorRtRtxBackend
from practise_backends.tensorrt.options import Profile, TensorRtOptions
from practise_backends.tensorrt.shipped import EngineArtifact

__all__ = ["EngineArtifact", "Profile", "TensorRtBackend", "TensorRtOptions", "TensorRtRtxBackend"]
