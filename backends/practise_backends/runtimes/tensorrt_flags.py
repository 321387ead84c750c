"""The options of the backends `trt` and `trt-rtx` as a command line offers them; apart from their code, which imports numpy."""

from __future__ import annotations

from pathlib import Path

from practise_backends.flags import Flag, between, one_of, positive, words_like

_CUDA = ("pycuda", "torch", "cuda-python")

FLAGS = (
    Flag(
        "cuda",
        None,
        "package for memory and events on the GPU (default: the first that is installed)",
        one_of(_CUDA),
        "|".join(_CUDA),
    ),
    Flag("optimisation_level", None, "how hard TensorRT's builder tries, 0 to 5", between(0, 5), "N"),
    Flag("workspace_mib", None, "memory that TensorRT's kernels may take, in MiB", positive, "N"),
    Flag("max_batch", 8, "largest batch of an engine with a dynamic batch", positive, "N"),
    Flag("timing_cache", None, "folder that keeps TensorRT's timings for the next build", Path, "FOLDER"),
    Flag("tf32", True, "TensorRT may not multiply float32 in TF32", None),
)
"""Each is a field of `TensorRtOptions`."""

RTX_FLAGS = (
    *FLAGS,
    Flag(
        "target_archs",
        (),
        "build the engine ahead for these compute capabilities: no GPU is needed here, but a latency table of one",
        words_like(r"sm\d{2,3}", "sm86,sm89,sm120"),
        "SM,SM",
    ),
)
