"""TensorRT: the backends `trt` and `trt-rtx`."""

from practise_backends.runtimes.tensorrt.backend import TensorRtBackend, TensorRtRtxBackend
from practise_backends.runtimes.tensorrt.engine_file import EngineArtifact
from practise_backends.runtimes.tensorrt.options import Profile, TensorRtOptions

__all__ = ["EngineArtifact", "Profile", "TensorRtBackend", "TensorRtOptions", "TensorRtRtxBackend"]
