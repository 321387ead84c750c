"""Where and how torch computes: device, precision, threads, seeds. The only place that sets torch's globals."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from practise_backends.errors import EnvironmentProblem


def pick_device(requested: str) -> torch.device:
    """The device for planning and finetuning.

    Raises: EnvironmentProblem where CUDA is requested and not available.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(
            "--compute cuda was requested, and torch finds no CUDA device", remedy="use --compute cpu"
        )
    return torch.device("cuda" if requested != "cpu" and torch.cuda.is_available() else "cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bf16 natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def fast_precision(device: torch.device) -> torch.dtype:
    """bf16 where the processor multiplies it natively, else fp32."""
    return torch.bfloat16 if has_fast_bf16(device) else torch.float32


def pick_precision(requested: str | None, side: int, device: torch.device) -> torch.dtype:
    """The precision of finetuning steps: as requested, else bf16 for large inputs where it is fast."""
    if requested is not None:
        return torch.bfloat16 if requested == "bf16" else torch.float32
    return fast_precision(device) if side > 64 else torch.float32


@contextlib.contextmanager
def exact(seed: int) -> Iterator[None]:
    """Repeatable arithmetic in full fp32: fixed seed, TF32 off, all usable cores."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    previous = torch.get_num_threads(), matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    torch.manual_seed(seed)
    if "OMP_NUM_THREADS" not in os.environ and hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    cudnn.deterministic = True
    try:
        yield
    finally:
        torch.set_num_threads(previous[0])
        _, matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = previous


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Draw random numbers (for dropout, say) from this seed, and restore the generators afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def autocast(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Compute convolutions and products in `dtype`, sums in fp32."""
    if dtype == torch.float32:
        yield
    else:
        with torch.autocast(device.type, dtype=dtype):
            yield
