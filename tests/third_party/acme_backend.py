"""A backend as a third party would write it: a clock of its own, and engines in files of its own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from practise_backends.errors import CompileError
from practise_backends.flags import Flag, positive
from practise_backends.interfaces import Capabilities, Progress
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Artifact, Conditions, Device, Tensors

FLAGS = (Flag("tiles", 1, "tiles of the accelerator", positive, "N"),)
PLAIN = Conditions()  # how the interpreter behind it runs


class AcmeEngine:
    """Outputs from an interpreter; a convolution takes 0.1 ms of the accelerator's own clock, and a run 0.5 ms besides."""

    computes_in_caller: bool | None = None
    runs_a_timing = 1

    def __init__(self, network: bytes) -> None:
        self._interpreter = OrtBackend().open(OrtBackend().compile(network, PLAIN), PLAIN)
        self.inputs, self.outputs = self._interpreter.inputs, self._interpreter.outputs
        nodes = onnx.load(io.BytesIO(network)).graph.node
        self._ms = 0.5 + 0.1 * sum(node.op_type == "Conv" for node in nodes)

    def run(self, tensors: Tensors) -> dict[str, np.ndarray]:
        return self._interpreter.run(tensors)

    def time_once(self, tensors: Tensors) -> float:
        return self._ms

    def close(self) -> None:
        self._interpreter.close()


class AcmeBackend:
    name = "acme"
    capabilities = Capabilities(
        clocks=("gpu_compute", "end_to_end"), engine_suffix=".acme", builds_differ=True,
        options=FLAGS,
    )  # fmt: skip

    def __init__(self, tiles: int = 1) -> None:
        self._tiles = tiles

    def device(self) -> Device:
        return Device(
            name="Acme accelerator", fingerprint="acme", versions={"acme": "1.0"}, facts={"tiles": str(self._tiles)}
        )

    def compile(
        self, model: bytes | Path, conditions: Conditions, *, build: int = 0,
        shapes: Mapping[str, Any] | None = None, progress: Progress | None = None,
    ) -> Artifact:  # fmt: skip
        network = model if isinstance(model, bytes) else onnx.load(model).SerializeToString()
        artifact = OrtBackend().compile(network, PLAIN)
        return replace(artifact, format="acme", device_fingerprint="acme", provider="acme 1.0")

    def save(self, artifact: Artifact, path: Path) -> tuple[Path, ...]:
        path.write_bytes(b"ACME" + bytes(artifact.content))
        return (path,)

    def load(self, file: Path, conditions: Conditions) -> Artifact:
        content = file.read_bytes()
        if not content.startswith(b"ACME"):
            raise CompileError(f"{file} is no engine of Acme's", remedy="build it again")
        return self.compile(content[4:], conditions)

    def open(self, artifact: Artifact, conditions: Conditions) -> AcmeEngine:
        return AcmeEngine(artifact.content)
