"""In which type a network's arithmetic layers compute, read from a file and never from what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from practise_backends.runtimes.onnx_file import ARITHMETIC, Network, Node

_FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
_QUANTISED = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulNBits", "QGemm"}
)
_INT8 = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm"})
_FUSED = frozenset({"FusedConv", "FusedGemm", "FusedMatMul"})  # ONNX Runtime's own, after its optimisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of the arithmetic is in a precision; None where that cannot be told.

    others: arithmetic nodes in another type, and in which.
    """

    share: float | None
    others: Mapping[str, str]


def share_of_fp32(network: Network) -> Share:
    """The share of the arithmetic layers (Conv, ConvTranspose, Gemm, MatMul) that compute in float32.

    A layer counts when its constant operands are float32 and none comes from DequantizeLinear; a layer
    without constant operands counts when the file names no other floating type at all.
    """
    weights = {weight.name: weight.dtype for weight in network.weights}
    dequantised = {out for node in network.nodes if node.op == "DequantizeLinear" for out in node.outputs}
    pure = _floating_types(network) == {"float32"}
    layers = [node for node in network.nodes if node.op in ARITHMETIC | _QUANTISED]
    if not layers:
        return Share(share=float(pure), others={})
    strange = [node for node in layers if not _is_fp32(node, weights, dequantised, pure)]
    return _share(layers, {node.name: "not float32" for node in strange}, len(strange))


def share_of_int8(network: Network) -> Share:
    """The same of integers, of a network as ONNX Runtime optimised it: its quantised operators among the arithmetic ones."""
    layers = [node for node in network.nodes if node.op in ARITHMETIC | _QUANTISED | _FUSED]
    strange = [node for node in layers if node.op not in _INT8]
    return _share(layers, {node.name: "float32" for node in strange}, len(strange))


def _share(layers: Sequence[Node], others: Mapping[str, str], count: int) -> Share:
    """count: of the layers in another type, which may share a name."""
    return Share(share=1 - count / len(layers) if layers else None, others=others)


def _is_fp32(layer: Node, weights: dict[str, str], dequantised: set[str], pure: bool) -> bool:
    """Whether one arithmetic layer is proved to compute in float32."""
    if layer.op in _QUANTISED or dequantised.intersection(layer.inputs):
        return False
    dtypes = {weights[name] for name in layer.inputs if name in weights}
    return dtypes == {"float32"} if dtypes else pure


def _floating_types(network: Network) -> set[str]:
    """Every floating type that the file names: inputs, outputs, weights and casts."""
    named = {spec.dtype for spec in (*network.inputs, *network.outputs)}
    named |= {weight.dtype for weight in network.weights} | {node.cast_to for node in network.nodes}
    return named & _FLOATS
