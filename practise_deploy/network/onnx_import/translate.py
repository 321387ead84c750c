"""A user's ONNX file as a network in torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, fx

from practise_deploy.errors import InputError
from practise_deploy.network.graph.packing import parts, unpack, unpacked
from practise_deploy.network.onnx_import import arithmetic, layers, rearranging, resampling
from practise_deploy.network.onnx_import.file import OnnxFile, readable
from practise_deploy.network.onnx_import.known import BATCHES, Untranslatable
from practise_deploy.network.onnx_import.library import by_library
from practise_deploy.network.onnx_import.nodes import Operand, reads_of
from practise_deploy.network.onnx_import.translator import VALUE, Translator
from practise_deploy.terms import InputSpec

OPERATIONS = {
    **arithmetic.OPERATIONS,
    **rearranging.OPERATIONS,
    **resampling.OPERATIONS,
    "BatchNormalization": layers.batch_norm,
    "Conv": layers.convolution,
    "ConvTranspose": layers.transposed_convolution,
    "Gemm": layers.gemm,
    "LayerNormalization": layers.layer_norm,
    "MatMul": layers.matmul,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """A file's network in torch, for any number of images, and where its values and weights stand in the file.

    values: the file's name of a value of the graph. operands: where the weights of a state key stand; others are not trained. layers:
    by module, the value that the file's node gives. inputs: of a file that takes no images.
    """

    file: OnnxFile
    inputs: tuple[InputSpec, ...]
    network: fx.GraphModule
    values: Mapping[str, str]
    operands: Mapping[str, tuple[Operand, ...]]
    layers: Mapping[str, str]

    def feeds(self, samples: Tensor) -> dict[str, npt.NDArray[np.generic]]:
        """Samples by the file's inputs. Shapes: as the network takes them [n, ...]."""
        if self.inputs:
            return unpacked(samples.numpy(), self.inputs)
        turned = samples.permute(0, 2, 3, 1) if self.file.layout == "nhwc" else samples
        return {self.file.inputs[0].name: turned.contiguous().numpy()}

    def shapes(self, batch: int, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The shapes of the file's inputs. shape: (channels, height, width) of images."""
        if self.inputs:
            return {spec.name: (batch, *spec.shape) for spec in self.inputs}
        return {self.file.inputs[0].name: self.file.in_layout((batch, *shape))}


def translate(file: OnnxFile, shape: tuple[int, ...], inputs: Sequence[InputSpec] = ()) -> Translation:
    """The network of a file.

    inputs: of a file that takes no images, whose samples come packed (`network.graph.packing`).
    Shapes: shape (channels, height, width) of the images. It takes [n, channels, height, width] whatever the file's layout.
    Raises: InputError, which names the node that has no counterpart.
    """
    model, opset = readable(file)
    translator = Translator(model, opset=opset, batch=file.batch)
    images = translator.add_input(tuple(sample_of(batch, shape, inputs) for batch in BATCHES))
    if inputs:
        for spec, part in zip(inputs, parts(inputs), strict=True):
            dtype = getattr(torch, spec.dtype)
            translator.bind(spec.name, translator.call(unpack, images, part.start, part.stop, spec.shape, dtype))
    elif file.layout == "nhwc":
        translator.bind(file.inputs[0].name, translator.call(torch.permute, images, (0, 2, 3, 1)))
    else:
        translator.bind(file.inputs[0].name, images)
    _take_all(translator, _ordered(model.graph))
    network = translator.finished([output.name for output in model.graph.output])
    values = {node.name: node.meta[VALUE] for node in network.graph.nodes if VALUE in node.meta}
    operands = {key: places for key, places in translator.operands.items() if key in network.state_dict()}
    return Translation(
        file=file,
        inputs=tuple(inputs),
        network=network,
        values=values,
        operands=operands,
        layers=translator.layers,
    )


def sample_of(count: int, shape: tuple[int, ...], inputs: Sequence[InputSpec] = ()) -> Tensor:
    """Noise as a network takes it, always the same; whole numbers are 0 or 1, and the first position always counts.

    Shapes: [count, *shape].
    """
    generator = torch.Generator().manual_seed(0)
    if not inputs:
        return torch.randn((count, *shape), generator=generator)
    drawn = []
    for spec in inputs:
        values = torch.randn((count, *spec.shape), generator=generator)
        if spec.dtype != "float32":
            values = (values > 0).float()
        if spec.is_mask:
            values[:, 0] = 1.0
        drawn.append(values.flatten(1))
    return torch.cat(drawn, 1)[:, None, None]


def _take_all(t: Translator, nodes: Iterable[onnx.NodeProto]) -> None:
    for node in nodes:
        t.take(node, _if if node.op_type == "If" else OPERATIONS.get(node.op_type, by_library))


def _if(t: Translator, node: onnx.NodeProto) -> tuple[fx.Node, ...]:
    """If, whose condition no image decides: the branch that is taken."""
    if not t.is_constant(node, 0):
        raise Untranslatable("its condition depends on the images")
    name = "then_branch" if t.constant(node, 0).item() else "else_branch"
    graph = next(attribute.g for attribute in node.attribute if attribute.name == name)
    with t.branch(graph):
        _take_all(t, graph.node)
    results = [output.name for output in graph.output]
    if all(result in t.known for result in results):
        t.known.rename(dict(zip(results, node.output, strict=True)))
        return ()
    return tuple(t.value(result) for result in results)


def _ordered(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes, in an order in which values are defined before they are read.

    Raises: InputError where there is none.
    """
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    waiting, ordered = list(graph.node), list[onnx.NodeProto]()
    while waiting:
        ready = [node for node in waiting if known.issuperset(reads_of(node))]
        if not ready:
            raise InputError(
                f"the value '{next(name for name in reads_of(waiting[0]) if name not in known)}' that a node of the file reads is nowhere defined",
                remedy="export the network again; onnx.checker says what else is wrong with the file",
            )
        known.update(name for node in ready for name in node.output)
        ordered += ready
        waiting = [node for node in waiting if not known.issuperset(node.output)]
    return ordered
