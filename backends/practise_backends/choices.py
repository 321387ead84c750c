"""Closed choices of words; quick to import."""

from __future__ import annotations

from enum import Enum


class _Word(str, Enum):
    """A choice of words, each equal to its own text."""

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


class Precision(_Word):
    """What a network is meant to compute in."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class ClockKind(_Word):
    """What is timed: the GPU's own work, or a whole run as the caller sees it, transfers included.

    WALL and CPU: of a whole run the wall-clock time or the CPU time of the computing thread, whatever else disturbs; END_TO_END takes
    the second where other processes interrupt many runs.
    """

    GPU_COMPUTE = "gpu_compute"
    END_TO_END = "end_to_end"
    WALL = "wall"
    CPU = "cpu"
