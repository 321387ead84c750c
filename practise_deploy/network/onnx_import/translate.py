"""A user's ONNX file as a network in torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
import torch
from torch import fx

from practise_deploy.errors import InputError
from practise_deploy.network.onnx_import import arithmetic, layers, rearranging, resampling
from practise_deploy.network.onnx_import.file import OnnxFile, readable
from practise_deploy.network.onnx_import.known import BATCHES, Untranslatable
from practise_deploy.network.onnx_import.library import by_library
from practise_deploy.network.onnx_import.nodes import Operand, reads_of
from practise_deploy.network.onnx_import.translator import VALUE, Translator

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
    by module, the value that the file's node gives.
    """

    file: OnnxFile
    network: fx.GraphModule
    values: Mapping[str, str]
    operands: Mapping[str, tuple[Operand, ...]]
    layers: Mapping[str, str]


def translate(file: OnnxFile, shape: tuple[int, int, int]) -> Translation:
    """The network of a file.

    Shapes: shape (channels, height, width) of the images. It takes [n, channels, height, width] whatever the file's layout.
    Raises: InputError, which names the node that has no counterpart.
    """
    model, opset = readable(file)
    translator = Translator(model, opset=opset, batch=file.batch)
    generator = torch.Generator().manual_seed(0)
    images = translator.add_input(
        file.input, tuple(torch.randn((batch, *shape), generator=generator) for batch in BATCHES)
    )
    if file.layout == "nhwc":
        translator.rebind(file.input, translator.call(torch.permute, images, (0, 2, 3, 1)))
    _take_all(translator, _ordered(model.graph))
    network = translator.finished([output.name for output in model.graph.output])
    values = {node.name: node.meta[VALUE] for node in network.graph.nodes if VALUE in node.meta}
    operands = {key: places for key, places in translator.operands.items() if key in network.state_dict()}
    return Translation(file=file, network=network, values=values, operands=operands, layers=translator.layers)


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
