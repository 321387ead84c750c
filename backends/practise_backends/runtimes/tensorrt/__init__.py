"""TensorRT: the backends `trt` and `trt-rtx`."""

from practise_backends.runtimes.tensorrt.backend import TensorRtBackend, TensorRtRtxBackend
from practise_backends.runtimes.tensorrt.options import Profile, TensorRtOptions
from practise_backends.runtimes.tensorrt.shipped import EngineArtifact

__all__ = ["EngineArtifact", "Profile", "TensorRtBackend", "TensorRtOptions", "TensorRtRtxBackend"]
