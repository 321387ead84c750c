"""Networks exported by torch's two exporters, as users do it."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass

import onnx
import torch
from torch import nn

from practise_deploy.network.graph.onnx_graph import quiet


@dataclass(frozen=True)
class Export:
    """How a file came about. free: nothing, the batch, or the sides of the images too. folded: with constants folded."""

    dynamo: bool
    opset: int
    free: str = ""
    folded: bool = True

    def __str__(self) -> str:
        return " ".join(
            word
            for word in (
                "dynamo" if self.dynamo else "script",
                str(self.opset),
                self.free and f"free {self.free}",
                "" if self.folded else "unfolded",
            )
            if word
        )

    def of(self, network: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
        """The network's file, from 'pixels' to 'scores'. Shapes: shape (1, channels, height, width)."""
        sample = torch.zeros(2 if self.free else 1, *shape[1:])
        with quiet(), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._by_dynamo(network, sample) if self.dynamo else self._by_script(network, sample)

    def _by_dynamo(self, network: nn.Module, sample: torch.Tensor) -> onnx.ModelProto:
        sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if self.free == "sides" else {}
        program = torch.onnx.export(
            network,
            (sample,),
            dynamo=True,
            opset_version=self.opset,
            verbose=False,
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("n"), **sides},) if self.free else None,
        )
        assert program is not None
        return program.model_proto

    def _by_script(self, network: nn.Module, sample: torch.Tensor) -> onnx.ModelProto:
        written = io.BytesIO()
        sides = {2: "height", 3: "width"} if self.free == "sides" else {}
        torch.onnx.export(
            network,
            (sample,),
            written,
            dynamo=False,
            opset_version=self.opset,
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_axes={"pixels": {0: "n", **sides}, "scores": {0: "n"}} if self.free else None,
            do_constant_folding=self.folded,
            keep_initializers_as_inputs=not self.folded,
        )
        return onnx.load_from_string(written.getvalue())
