"""TensorRT: the backends `trt` and `trt-rtx`."""

from practise_backends.tensorrt.backend import EngineArtifact, TensorRtBackend, TensorRtRtxBackend
from practise_backends.tensorrt.options import Profile, TensorRtOptions

__all__ = ["EngineArtifact", "Profile", "TensorRtBackend", "TensorRtOptions", "TensorRtRtxBackend"]
