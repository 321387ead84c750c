"""Every operator, alone: as it stands in files of several opsets, for one image or any number, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from practise_deploy.network.onnx_import.translate import OPERATIONS
from samples.onnx_files import Weights, computed, in_torch, ints, model_of, noise, translated

Nodes = list[onnx.NodeProto]
IMAGES, RESULT = "images", "result"
OPSETS = (9, 13, 20)


@dataclass(frozen=True)
class Case:
    """A network of one operator, or of few. make: its nodes and weights for an opset."""

    name: str
    make: Callable[[int], tuple[Nodes, Weights]]
    opsets: Sequence[int] = OPSETS
    shape: tuple[int, ...] = (3, 8, 8)
    batches: tuple[int | str, ...] = ("n", 1)
    counts: tuple[int, ...] = (1, 2, 3)


def node(kind: str, *inputs: str, to: str | Sequence[str] = RESULT, **attributes: Any) -> onnx.NodeProto:
    outputs = [to] if isinstance(to, str) else list(to)
    return helper.make_node(kind, list(inputs) or [IMAGES], outputs, name=f"{kind}_{outputs[0]}", **attributes)


def one(name: str, kind: str, *, weights: Weights | None = None, inputs: Sequence[str] = (), **how: Any) -> Case:
    """One node, with its attributes, that reads the images and these weights."""
    weights = weights or {}
    opsets, shape = how.pop("opsets", OPSETS), how.pop("shape", (3, 8, 8))
    names = list(inputs) or [IMAGES, *weights]
    return Case(name, lambda opset: ([node(kind, *names, **how)], weights), opsets, shape)


def rows(*nodes: onnx.NodeProto, width: int = 48) -> Nodes:
    """The nodes, for which the images are flattened to 'rows' [n, width] before."""
    return [node("Flatten", to="rows"), *nodes]


def tokens(*nodes: onnx.NodeProto) -> Nodes:
    """The nodes, for which the images are put to 'tokens' [n, 16, 6] before. For images of shape (6, 4, 4)."""
    return [
        node("Reshape", IMAGES, "to_tokens", to="channels_first"),
        node("Transpose", "channels_first", to="tokens", perm=[0, 2, 1]),
        *nodes,
    ]


TOKENS = {"to_tokens": ints(0, 6, 16)}


def as_input(opset: int, since: int, kind: str, name: str, values: Sequence[int], **attributes: Any) -> Any:
    """A node whose attribute became its second input with an opset."""
    if opset < since:
        return [node(kind, **{name: list(values)}, **attributes)], {}
    return [node(kind, IMAGES, "given", **attributes)], {"given": ints(*values)}


# What has weights


def conv(name: str, weight: tuple[int, ...], *, bias: bool = True, **how: Any) -> Case:
    weights = {"w": noise(*weight), **({"b": noise(weight[0], seed=1)} if bias else {})}
    return one(f"Conv {name}", "Conv", weights=weights, **how)


def transposed(name: str, weight: tuple[int, ...], outputs: int, **how: Any) -> Case:
    return one(f"ConvTranspose {name}", "ConvTranspose", weights={"w": noise(*weight), "b": noise(outputs)}, **how)


def one_dimensional(opset: int) -> tuple[Nodes, Weights]:
    nodes = [
        node("Reshape", IMAGES, "to_rows", to="rows"),
        node("Conv", "rows", "w", "b", kernel_shape=[3], pads=[1, 1], to=RESULT),
    ]
    return nodes, {"to_rows": ints(0, 3, 64), "w": noise(5, 3, 3), "b": noise(5)}


def conv_and_sum(shape: tuple[int, ...], first: bool = False) -> Callable[[int], tuple[Nodes, Weights]]:
    def make(opset: int) -> tuple[Nodes, Weights]:
        order = ("b", "x") if first else ("x", "b")
        return [node("Conv", IMAGES, "w", to="x"), node("Add", *order)], {"w": noise(4, 3, 1, 1), "b": noise(*shape)}

    return make


def gemm(transpose_a: int, transpose_b: int, factors: tuple[float, float], bias: tuple[int, ...] | None) -> Case:
    def make(opset: int) -> tuple[Nodes, Weights]:
        weights = {"w": noise(*((5, 48) if transpose_b else (48, 5)))}
        inputs = ["rows" if not transpose_a else "columns", "w"]
        if bias is not None:
            weights["c"] = noise(*bias)
            inputs.append("c")
        turned = [node("Transpose", "rows", to="columns", perm=[1, 0])] if transpose_a else []
        alpha, beta = factors
        made = node("Gemm", *inputs, transA=transpose_a, transB=transpose_b, alpha=alpha, beta=beta)
        return rows(*turned, made), weights

    return Case(
        f"Gemm {transpose_a}{transpose_b} {factors} {bias}", make, (11, 13) if bias is None else (9, 11, 13), (3, 4, 4)
    )


def matmul(name: str, *nodes: onnx.NodeProto, **weights: np.ndarray) -> Case:
    return Case(f"MatMul {name}", lambda opset: (tokens(*nodes), {**TOKENS, **weights}), (9, 13), (6, 4, 4))


def batch_norm(rank: int) -> Case:
    def make(opset: int) -> tuple[Nodes, Weights]:
        target = {2: (0, 16), 3: (0, 4, 4), 4: (0, 4, 2, 2), 5: (0, 2, 2, 2, 2)}[rank]
        width = target[1]
        values = {"s": noise(width), "b": noise(width, seed=1), "m": noise(width, seed=2), "v": noise(width) ** 2 + 0.1}
        nodes = [node("Reshape", IMAGES, "target", to="x"), node("BatchNormalization", "x", *values, epsilon=1e-3)]
        return nodes, {"target": ints(*target), **values}

    return Case(f"BatchNormalization of {rank} axes", make, (9, 14, 15), (1, 4, 4))


def layer_norm(axis: int, sides: tuple[int, ...], bias: bool) -> Case:
    weights = {"s": noise(*sides), **({"b": noise(*sides, seed=1)} if bias else {})}
    return one(
        f"LayerNormalization {axis} {bias}",
        "LayerNormalization",
        weights=weights,
        axis=axis,
        epsilon=1e-4,
        opsets=(17, 20),
    )


LAYERS = [
    conv("3x3", (4, 3, 3, 3), pads=[1, 1, 1, 1]),
    conv("without a bias", (4, 3, 3, 3), bias=False, kernel_shape=[3, 3]),
    conv("strided and dilated", (4, 3, 3, 3), strides=[2, 2], dilations=[2, 2], pads=[2, 2, 2, 2]),
    conv("of each channel", (6, 1, 3, 3), group=3, pads=[1, 1, 1, 1]),
    conv("in groups", (4, 2, 1, 1), group=2, shape=(4, 4, 4)),
    conv("padded at the ends", (4, 3, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1]),
    conv("padded unevenly", (4, 3, 2, 3), pads=[1, 2, 0, 1]),
    *(
        conv(f"{kind} {stride} {side}", (4, 3, 3, 3), auto_pad=kind, strides=[stride, stride], shape=(3, side, side + 1), opsets=(9, 18))
        for kind in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for stride in (1, 2)
        for side in (7, 8)
    ),
    conv("SAME_LOWER of an even kernel", (4, 3, 2, 4), auto_pad="SAME_LOWER"),
    Case("Conv of rows", one_dimensional),
    Case("Conv and the bias behind it", conv_and_sum((4, 1, 1))),
    Case("Conv and the bias behind it, of one image", conv_and_sum((1, 4, 1, 1), first=True)),
    Case("Conv and a sum of a row, which is no bias", conv_and_sum((8,))),
    transposed("2x2", (3, 4, 2, 2), 4, strides=[2, 2]),
    transposed("padded", (3, 4, 3, 3), 4, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    transposed("in groups", (4, 2, 3, 3), 4, group=2, pads=[1, 1, 1, 1], shape=(4, 5, 5)),
    transposed("padded unevenly", (3, 4, 3, 3), 4, strides=[2, 2], pads=[0, 0, 1, 1]),
    transposed("padded unevenly and longer", (3, 4, 3, 3), 4, strides=[2, 2], pads=[0, 1, 1, 0], output_padding=[1, 1]),
    transposed("SAME_UPPER", (3, 4, 3, 3), 4, strides=[2, 2], auto_pad="SAME_UPPER", opsets=(11, 13, 18)),
    transposed("SAME_LOWER", (3, 4, 3, 3), 4, strides=[2, 2], auto_pad="SAME_LOWER", opsets=(11, 13, 18)),
    transposed("of a given shape", (3, 4, 3, 3), 4, strides=[2, 2], output_shape=[16, 15], opsets=(11, 13, 18)),
    transposed("dilated", (3, 4, 3, 3), 4, dilations=[2, 2]),
    gemm(0, 0, (1.0, 1.0), (5,)),
    gemm(0, 1, (1.0, 1.0), (5,)),
    gemm(0, 1, (1.0, 1.0), (1, 5)),
    gemm(0, 1, (1.0, 1.0), None),
    gemm(0, 1, (1.0, 1.0), (1,)),
    gemm(0, 0, (0.5, 2.0), (5,)),
    gemm(1, 0, (1.0, 1.0), (5,)),
    gemm(1, 1, (0.5, 0.0), (5,)),
    gemm(1, 1, (2.0, 1.0), None),
    matmul("of a matrix", node("MatMul", "tokens", "w"), w=noise(6, 5)),
    matmul("and the bias behind it", node("MatMul", "tokens", "w", to="x"), node("Add", "x", "b"), w=noise(6, 5), b=noise(5)),
    matmul("and the bias before it", node("MatMul", "tokens", "w", to="x"), node("Add", "b", "x"), w=noise(6, 5), b=noise(1, 1, 5)),
    matmul("and a sum of every token", node("MatMul", "tokens", "w", to="x"), node("Add", "x", "b"), w=noise(6, 5), b=noise(16, 5)),
    matmul("from the left", node("MatMul", "w", "tokens"), w=noise(5, 16)),
    matmul("of a stack", node("MatMul", "tokens", "w"), w=noise(1, 6, 5)),
    matmul("of both", node("Transpose", "tokens", perm=[0, 2, 1], to="turned"), node("MatMul", "tokens", "turned")),
    *map(batch_norm, (2, 3, 4, 5)),
    layer_norm(-1, (8,), True),
    layer_norm(-1, (8,), False),
    layer_norm(2, (8, 8), True),
]  # fmt: skip


# What computes without


def clip(low: float | None, high: float | None) -> Case:
    def make(opset: int) -> tuple[Nodes, Weights]:
        bounds = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
        if opset < 11:
            return [node("Clip", **bounds)], {}
        names = ["low" if low is not None else "", "high"] if high is not None else ["low"]
        given = {"low": low, "high": high}
        return [node("Clip", IMAGES, *names)], {
            name: np.array(value, np.float32) for name, value in given.items() if value is not None
        }

    return Case(f"Clip {low} {high}", make, (7, 9, 11, 13))


def softmax(kind: str, axis: int | None) -> Case:
    how = {} if axis is None else {"axis": axis}
    return one(f"{kind} {axis}", kind, opsets=(8, 9, 11, 13, 18), **how)


def reduction(kind: str, axes: Sequence[int], keep: int) -> Case:
    since = 13 if kind == "ReduceSum" else 18
    return Case(
        f"{kind} {axes} {keep}",
        lambda opset: as_input(opset, since, kind, "axes", axes, keepdims=keep),
        (9, 13, 18, 20),
    )


def binary(
    name: str, kind: str, other: np.ndarray, *, first: bool = False, opsets: Sequence[int] = (8, 13, 20)
) -> Case:
    inputs = ("c", IMAGES) if first else (IMAGES, "c")
    return one(f"{kind} {name}", kind, weights={"c": other}, inputs=inputs, opsets=opsets)


def both(kind: str, *, opsets: Sequence[int] = (9, 13)) -> Case:
    return Case(f"{kind} of two values", lambda opset: ([node("Neg", to="x"), node(kind, IMAGES, "x")], {}), opsets)


def positive(kind: str, opsets: Sequence[int] = (9, 13)) -> Case:
    """Of positive numbers."""
    return Case(kind, lambda opset: ([node("Exp", to="x"), node(kind, "x")], {}), opsets)


def integer_division(opset: int) -> tuple[Nodes, Weights]:
    nodes = [
        helper.make_node("Cast", [IMAGES], ["whole"], to=7),
        node("Mul", "whole", "seven", to="more"),
        node("Div", "more", "two", to="half"),
        helper.make_node("Cast", ["half"], [RESULT], to=1),
    ]
    return nodes, {"seven": ints(7), "two": ints(2)}


def branch(nodes: Nodes, output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [helper.make_empty_tensor_value_info(output)])


def condition(kind: str) -> Callable[[int], tuple[Nodes, Weights]]:
    """If: by a constant, or by a shape; the branch that is taken holds weights, or reads what is outside."""

    def make(opset: int) -> tuple[Nodes, Weights]:
        weight = numpy_helper.from_array(noise(3, 3, 1, 1), "inner_w")
        then = helper.make_graph(
            [node("Conv", "x", "inner_w", to="inner"), node("Relu", "inner", to="then_out")],
            "then",
            [],
            [helper.make_empty_tensor_value_info("then_out")],
            [weight],
        )
        otherwise = branch([node("Identity", "x", to="else_out")], "else_out")
        decided = node("If", "yes", then_branch=then, else_branch=otherwise, to="taken")
        after = node("Add", "taken", "x")
        if kind == "constant":
            return [node("Neg", to="x"), decided, after], {"yes": np.array(True)}
        shape = [
            node("Neg", to="x"),
            node("Shape", "x", to="shape"),
            node("Gather", "shape", "one", to="channels", axis=0),
            node("Equal", "channels", "three", to="yes"),
        ]
        return [*shape, decided, after], {"one": np.array(1, np.int64), "three": np.array(3, np.int64)}

    return make


def condition_of_shapes(opset: int) -> tuple[Nodes, Weights]:
    """If whose branches give a shape."""
    nodes = [
        node("Shape", to="shape"),
        helper.make_node(
            "If",
            ["yes"],
            ["target"],
            then_branch=branch([node("Identity", "flat", to="a")], "a"),
            else_branch=branch([node("Identity", "shape", to="b")], "b"),
        ),
        node("Reshape", IMAGES, "target"),
    ]
    return nodes, {"yes": np.array(False), "flat": ints(0, -1)}


def prelu(slope: tuple[int, ...]) -> Case:
    return one(f"PRelu {slope}", "PRelu", weights={"slope": noise(*slope)}, opsets=(9, 16))


def attribute_cases(kind: str, opsets: Sequence[int] = (9, 13), **values: Any) -> list[Case]:
    return [one(f"{kind} by default", kind, opsets=opsets), one(f"{kind} {values}", kind, opsets=opsets, **values)]


ARITHMETIC = [
    *(one(kind, kind, opsets=(9, 13)) for kind in ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Neg", "Relu", "Sigmoid", "Sin", "Softplus", "Tanh", "Identity")),
    *(one(kind, kind, opsets=(9, 20)) for kind in ("Round", "Sign", "Softsign", "Selu", "Atan") if kind != "Round"),
    one("Round", "Round", opsets=(11, 20)),
    one("HardSwish", "HardSwish", opsets=(14, 20)),
    one("Mish", "Mish", opsets=(18, 20)),
    *map(positive, ("Log", "Reciprocal", "Sqrt")),
    *attribute_cases("HardSigmoid", alpha=1 / 6, beta=0.5),
    one("HardSigmoid of Paddle", "HardSigmoid", alpha=0.2, beta=0.5),
    one("HardSigmoid of another offset", "HardSigmoid", alpha=0.3, beta=0.4),
    *attribute_cases("LeakyRelu", alpha=0.2),
    *attribute_cases("Elu", alpha=0.5),
    *attribute_cases("ThresholdedRelu", (10, 13), alpha=0.3),
    *attribute_cases("Gelu", (20,), approximate="tanh"),
    *attribute_cases("Dropout", (9, 11)),
    one("Dropout of opset 13", "Dropout", weights={"ratio": np.array(0.5, np.float32)}, opsets=(13, 20)),
    *(clip(low, high) for low, high in ((0.0, 6.0), (0.0, None), (-0.5, 0.5), (None, 0.3), (0.0, 1.0))),
    *(softmax(kind, axis) for kind in ("Softmax", "LogSoftmax") for axis in (1, 2, 3, -1)),
    softmax("Softmax", None),
    Case("Softmax of logits", lambda opset: (rows(node("Softmax", "rows", axis=1)), {}), (9, 11, 13)),
    *(reduction(kind, axes, keep) for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2") for axes, keep in (((2, 3), 1), ((2, 3), 0), ((-1,), 1), ((1,), 0))),
    *(reduction(kind, (2, 3), 1) for kind in ("ReduceProd", "ReduceL1", "ReduceSumSquare", "ReduceLogSumExp")),
    Case("ReduceLogSum", lambda opset: ([node("Exp", to="x"), node("ReduceLogSum", "x", *(("given",) if opset >= 18 else ()), **({} if opset >= 18 else {"axes": [2, 3]}))], {"given": ints(2, 3)} if opset >= 18 else {}), (9, 18)),
    Case("ReduceSum of no axes", lambda opset: ([node("ReduceSum", IMAGES, "given", noop_with_empty_axes=1)], {"given": ints()}), (13, 18)),
    *(binary("of a number", kind, np.array(0.7, np.float32)) for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min")),
    *(binary("of channels", kind, noise(3, 1, 1)) for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min")),
    *(binary("from the left", kind, np.array([2.0], np.float32), first=True) for kind in ("Sub", "Div", "Pow")),
    Case("Add of one number in five axes", lambda opset: ([node("Add", IMAGES, "c")], {"c": np.full((1, 1, 1, 1, 1), 2, np.float32)}), batches=("n",)),
    binary("squared", "Pow", np.array(2, np.float32)),
    binary("squared by an integer", "Pow", np.array([2], np.int64), opsets=(12, 13)),
    binary("of whole images", "Mul", noise(3, 8, 8)),
    *map(both, ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")),
    Case("Sum of one", lambda opset: ([node("Sum", IMAGES)], {}), (9, 13)),
    Case("Sum of three", lambda opset: ([node("Neg", to="x"), node("Sum", IMAGES, "x", "c")], {"c": noise(8)}), (9, 13)),
    Case("Max of one", lambda opset: ([node("Max", IMAGES)], {}), (9, 13)),
    Case("Max of three", lambda opset: ([node("Neg", to="x"), node("Max", IMAGES, "x", "c")], {"c": noise(8)}), (9, 13)),
    Case("Div of integers", integer_division, (9, 13)),
    Case("Cast to integers and back", lambda opset: ([helper.make_node("Cast", [IMAGES], ["x"], to=6), helper.make_node("Cast", ["x"], [RESULT], to=1)], {}), (9, 13, 20)),
    Case("Einsum of weights", lambda opset: ([node("Einsum", IMAGES, "w", equation="nchw,dc->ndhw")], {"w": noise(5, 3)}), (12, 20)),
    Case("Einsum of two values", lambda opset: ([node("Einsum", IMAGES, IMAGES, equation="bchw,bdhw->bcd")], {}), (12, 20)),
    Case("Where", lambda opset: ([node("Greater", IMAGES, "zero", to="mask"), node("Where", "mask", IMAGES, "c")], {"zero": np.array(0.1, np.float32), "c": noise(3, 1, 1)}), (9, 16)),
    *map(prelu, ((3, 1, 1), (1,), (1, 3, 1, 1), (8,))),
    Case("If by a constant", condition("constant"), (11, 13, 18)),
    Case("If by a shape", condition("shape"), (11, 13, 18)),
    Case("If of shapes", condition_of_shapes, (13, 18), batches=("n",)),
    Case("InstanceNormalization", lambda opset: ([node("InstanceNormalization", IMAGES, "s", "b")], {"s": noise(3), "b": noise(3)}), (9, 18)),
    one("LRN", "LRN", size=3, opsets=(9, 13)),
    one("DepthToSpace", "DepthToSpace", blocksize=2, shape=(8, 4, 4), opsets=(9, 13)),
    one("DepthToSpace by columns first", "DepthToSpace", blocksize=2, mode="CRD", shape=(8, 4, 4), opsets=(11, 13)),
    one("ArgMax", "ArgMax", axis=1, keepdims=0, opsets=(9, 13)),
    Case("Tile", lambda opset: ([node("Tile", IMAGES, "times")], {"times": ints(1, 2, 1, 3)}), (9, 13)),
    Case("Not, And, Equal", lambda opset: ([node("Greater", IMAGES, "zero", to="a"), node("Not", "a", to="b"), node("Less", IMAGES, "zero", to="c"), node("And", "b", "c", to="d"), helper.make_node("Cast", ["d"], [RESULT], to=1)], {"zero": np.array(0.0, np.float32)}), (9, 13)),
]  # fmt: skip


# What resamples


def pooling(kind: str, name: str, kernel: tuple[int, int], *, opsets: Sequence[int] = (9, 11, 12), **how: Any) -> Case:
    return one(f"{kind} {name}", kind, kernel_shape=list(kernel), opsets=opsets, **how)


def resize(name: str, *, scales: Sequence[float] | None = None, sizes: Sequence[int] | None = None, **how: Any) -> Case:
    opsets = how.pop("opsets", (11, 18))

    def make(opset: int) -> tuple[Nodes, Weights]:
        roi = {"roi": np.zeros(0, np.float32)} if opset < 13 else {}
        if scales is not None:
            nodes = [node("Resize", IMAGES, "roi" if roi else "", "scales", **how)]
            return nodes, {"scales": np.array([1, 1, *scales], np.float32), **roi}
        shape = [
            node("Shape", to="shape"),
            node("Slice", "shape", "zero", "two", to="kept"),
            node("Concat", "kept", "sides", axis=0, to="sizes"),
        ]
        weights = {"zero": ints(0), "two": ints(2), "sides": ints(*(sizes or ())), **roi}
        middle = ("roi", "roi") if roi else ("", "")
        return [*shape, node("Resize", IMAGES, *middle, "sizes", **how)], weights

    return Case(f"Resize {name}", make, opsets, (3, 6, 5))


def old_resize(kind: str, scales: Sequence[float], mode: str, opsets: Sequence[int]) -> Case:
    def make(opset: int) -> tuple[Nodes, Weights]:
        if kind == "Upsample" and opset < 9:
            return [node(kind, scales=[1.0, 1.0, *scales], mode=mode)], {}
        return [node(kind, IMAGES, "scales", mode=mode)], {"scales": np.array([1, 1, *scales], np.float32)}

    return Case(f"{kind} {mode} {scales}", make, opsets)


PLACES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
RESAMPLING = [
    *(
        pooling(kind, name, kernel, **how)
        for kind in ("MaxPool", "AveragePool")
        for name, kernel, how in (
            ("plain", (2, 2), {"strides": [2, 2]}),
            ("of stride 1", (3, 2), {}),
            ("padded", (3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
            ("padded at the ends", (3, 3), {"strides": [2, 2], "pads": [0, 0, 1, 1]}),
            ("padded widely", (3, 3), {"pads": [2, 2, 2, 2]}),
            ("SAME_UPPER", (3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
            ("SAME_LOWER", (2, 2), {"auto_pad": "SAME_LOWER"}),
            ("VALID", (3, 3), {"strides": [2, 2], "auto_pad": "VALID"}),
            ("rounded up", (3, 3), {"strides": [2, 2], "ceil_mode": 1, "opsets": (10, 12), "shape": (3, 8, 7)}),
        )
    ),
    pooling("MaxPool", "rounded up and padded", (3, 3), strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, opsets=(10, 12)),
    pooling("MaxPool", "dilated", (2, 2), dilations=[2, 2], opsets=(10, 12)),
    pooling("AveragePool", "counting padding", (3, 3), pads=[1, 1, 1, 1], count_include_pad=1),
    pooling("AveragePool", "counting padding at the ends", (3, 3), pads=[0, 0, 1, 1], count_include_pad=1),
    one("GlobalAveragePool", "GlobalAveragePool"),
    one("GlobalMaxPool", "GlobalMaxPool"),
    Case("GlobalAveragePool of rows", lambda opset: ([node("Reshape", IMAGES, "target", to="rows"), node("GlobalAveragePool", "rows")], {"target": ints(0, 3, -1)})),
    Case("MaxPool of rows", lambda opset: ([node("Reshape", IMAGES, "target", to="rows"), node("MaxPool", "rows", kernel_shape=[2], strides=[2])], {"target": ints(0, 3, -1)})),
    Case("AveragePool of rows", lambda opset: ([node("Reshape", IMAGES, "target", to="rows"), node("AveragePool", "rows", kernel_shape=[2], strides=[2])], {"target": ints(0, 3, -1)})),
    *(resize(f"linear twice {place}", scales=(2, 2), mode="linear", coordinate_transformation_mode=place) for place in PLACES),
    *(resize(f"linear smaller {place}", sizes=(4, 3), mode="linear", coordinate_transformation_mode=place) for place in PLACES),
    *(resize(f"cubic {place}", scales=(2, 2), mode="cubic", coordinate_transformation_mode=place, cubic_coeff_a=-0.75) for place in PLACES),
    *(
        resize(f"nearest {name} {place} {rounding}", mode="nearest", coordinate_transformation_mode=place, nearest_mode=rounding, opsets=(13,), **how)
        for place in ("half_pixel", "asymmetric", "align_corners")
        for rounding in ("round_prefer_floor", "floor", "ceil", "round_prefer_ceil")
        for name, how in (("twice", {"scales": (2, 2)}), ("thrice", {"scales": (3, 3)}), ("to a size", {"sizes": (9, 3)}))
    ),
    resize("linear by a fraction", scales=(1.3, 1.7), mode="linear"),
    resize("linear by a fraction, corners aligned", scales=(1.3, 1.7), mode="linear", coordinate_transformation_mode="align_corners"),
    resize("nearest by a fraction", scales=(1.3, 0.5), mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    resize("linear to one", sizes=(1, 1), mode="linear", coordinate_transformation_mode="pytorch_half_pixel"),
    resize("cubic excluding what is outside", scales=(2, 2), mode="cubic", exclude_outside=1),
    Case("Resize of two axes", lambda opset: ([node("Resize", IMAGES, "", "scales", mode="linear", axes=[2, 3])], {"scales": np.array([2, 2], np.float32)}), (18, 20)),
    *(old_resize("Upsample", (2, 2), mode, (7, 9)) for mode in ("nearest", "linear")),
    *(old_resize("Resize", scales, mode, (10,)) for mode in ("nearest", "linear") for scales in ((2, 2), (1.5, 2.5))),
]  # fmt: skip


# What puts numbers in other places


def reshape(name: str, *target: int, **how: Any) -> Case:
    batches = how.pop("batches", ("n", 1))
    opsets = how.pop("opsets", (9, 13, 20))
    return Case(f"Reshape {name}", lambda opset: ([node("Reshape", IMAGES, "target", **how)], {"target": ints(*target)}), opsets, batches=batches)  # fmt: skip


def computed_shape(opset: int) -> tuple[Nodes, Weights]:
    """Shape, Slice, Concat, Reshape, as exporters write x.view(x.size(0), -1)."""
    how: dict[str, Any] = {"axes": [0], "starts": [0], "ends": [1]} if opset < 10 else {}
    extra = () if opset < 10 else ("zero", "one", "zero")
    nodes = [
        node("Shape", to="shape"),
        node("Slice", "shape", *extra, to="first", **how),
        node("Concat", "first", "rest", axis=0, to="target"),
        node("Reshape", IMAGES, "target"),
    ]
    return nodes, {"zero": ints(0), "one": ints(1), "rest": ints(-1)}


def windows(opset: int) -> tuple[Nodes, Weights]:
    """Windows of 4x4, as Swin takes them, in a file for one image."""
    nodes = [
        node("Reshape", IMAGES, "split", to="a"),
        node("Transpose", "a", perm=[0, 2, 4, 3, 5, 1], to="b"),
        node("Reshape", "b", "together", to="c"),
        node("Softmax", "c", axis=2, to="d"),
        node("Reshape", "d", "apart", to="e"),
        node("Transpose", "e", perm=[0, 5, 1, 3, 2, 4], to="f"),
        node("Reshape", "f", "whole"),
    ]
    targets = {
        "split": (1, 3, 2, 4, 2, 4),
        "together": (4, 16, -1),
        "apart": (-1, 2, 2, 4, 4, 3),
        "whole": (1, 3, 8, 8),
    }
    return nodes, {name: ints(*target) for name, target in targets.items()}


def heads(opset: int) -> tuple[Nodes, Weights]:
    """Queries and keys of two heads, in a file for one image, by a reshape that puts three in front."""
    nodes = [
        node("Reshape", IMAGES, "split", to="a"),
        node("Transpose", "a", perm=[1, 0, 2], to="b"),
        node("Reshape", "b", "again", to="c"),
        node("Gather", "c", "second", axis=0, to="d"),
        node("Reshape", "d", "flat"),
    ]
    return nodes, {
        "split": ints(1, 3, 64),
        "again": ints(3, 1, 2, 32),
        "second": np.array(1, np.int64),
        "flat": ints(1, -1),
    }


def class_token(opset: int) -> tuple[Nodes, Weights]:
    """A token that is expanded to the number of images, and put before them."""
    nodes = [
        node("Reshape", IMAGES, "flat", to="rows"),
        node("Shape", "rows", to="shape"),
        node("Gather", "shape", "zero", axis=0, to="number"),
        node("Unsqueeze", "number", *(() if opset < 13 else ("first",)), to="numbers", **({"axes": [0]} if opset < 13 else {})),
        node("Concat", "numbers", "sides", axis=0, to="target"),
        node("Expand", "token", "target", to="tokens"),
        node("Concat", "tokens", "rows", axis=1),
    ]  # fmt: skip
    return nodes, {
        "flat": ints(0, 3, 64), "zero": np.array(0, np.int64), "first": ints(0), "sides": ints(1, 64), "token": noise(1, 1, 64),
    }  # fmt: skip


def slices(name: str, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]) -> Case:
    def make(opset: int) -> tuple[Nodes, Weights]:
        if opset < 10:
            return [node("Slice", starts=list(starts), ends=list(ends), axes=list(axes))], {}
        given = {"starts": starts, "ends": ends, "axes": axes, "steps": steps}
        return [node("Slice", IMAGES, *given)], {key: ints(*values) for key, values in given.items()}

    return Case(f"Slice {name}", make, (10, 13) if set(steps) != {1} else (9, 10, 13))


def split(name: str, sizes: Sequence[int] | None, parts: int, side: int) -> Case:
    def make(opset: int) -> tuple[Nodes, Weights]:
        outputs = [f"part{number}" for number in range(parts)]
        joined = node("Concat", *outputs[::-1], axis=1)
        if sizes is None:
            how = {"num_outputs": parts} if opset >= 18 else {}
            return [node("Split", to=outputs, axis=1, **how), joined], {}
        if opset < 13:
            return [node("Split", to=outputs, axis=1, split=list(sizes)), joined], {}
        return [node("Split", IMAGES, "sizes", to=outputs, axis=1), joined], {"sizes": ints(*sizes)}

    return Case(f"Split {name}", make, (18, 20) if sizes is None and side % parts else (9, 13, 18), (side, 4, 4))


def pad(name: str, pads: Sequence[int], mode: str = "constant", value: float | None = None, opsets: Any = (9, 11, 13, 18)) -> Case:  # fmt: skip
    def make(opset: int) -> tuple[Nodes, Weights]:
        if opset < 11:
            return [node("Pad", pads=list(pads), mode=mode, **({} if value is None else {"value": value}))], {}
        weights = {"pads": ints(*pads), **({} if value is None else {"value": np.array(value, np.float32)})}
        return [node("Pad", IMAGES, *weights, mode=mode)], weights

    return Case(f"Pad {mode} {name}", make, opsets)


def gather(name: str, axis: int, indices: np.ndarray) -> Case:
    return one(f"Gather {name}", "Gather", weights={"indices": indices}, axis=axis, opsets=(9, 11, 13))


def squeezed(axes: Sequence[int] | None) -> Case:
    def make(opset: int) -> tuple[Nodes, Weights]:
        pooled = node("GlobalAveragePool", to="x")
        if axes is None:
            return [pooled, node("Squeeze", "x")], {}
        if opset < 13:
            return [pooled, node("Squeeze", "x", axes=list(axes))], {}
        return [pooled, node("Squeeze", "x", "axes")], {"axes": ints(*axes)}

    if axes is not None:
        return Case(f"Squeeze {axes}", make, (9, 11, 13))
    return Case(
        "Squeeze of all axes of one", make, (9, 11, 13), batches=("n",), counts=(2, 3)
    )  # of one image, of its axis too


REARRANGING = [
    reshape("to rows", 0, -1),
    reshape("with the images open", -1, 3, 64),
    reshape("of zeros", 0, 0, 64),
    reshape("allowing zero", -1, 192, allowzero=1, opsets=(14, 20)),
    reshape("for one image", 1, 192, batches=(1,)),
    reshape("for one image, the rest inferred", 1, -1, batches=(1,)),
    reshape("for one image, in several axes", 1, 1, 3, 64, batches=(1,)),
    reshape("inferring the images of one", -1, 192),
    reshape("for four images", 4, 3, 64, batches=(4,)),
    Case("Reshape by a computed shape", computed_shape, (9, 11, 13)),
    Case("Reshape to windows", windows, (13, 18), batches=(1,)),
    Case("Reshape to heads", heads, (13,), batches=(1,)),
    Case("Expand and Concat of a class token", class_token, (9, 13)),
    Case("Expand", lambda opset: ([node("Reshape", IMAGES, "flat", to="x"), node("Expand", "x", "target")], {"flat": ints(0, 3, 1, 64), "target": ints(1, 2, 64)}), (9, 13)),
    Case("Concat with what a file for one image holds once", lambda opset: ([node("Reshape", IMAGES, "flat", to="x"), node("Concat", "token", "x", axis=1)], {"flat": ints(1, 3, 64), "token": noise(1, 1, 64)}), (9, 13), batches=(1,)),
    *(one(f"Flatten {axis}", "Flatten", axis=axis, opsets=(9, 13)) for axis in (1, 2, 3)),
    one("Flatten from the end", "Flatten", axis=-3, opsets=(11, 13)),
    one("Transpose", "Transpose", perm=[0, 2, 3, 1]),
    *map(squeezed, ((2, 3), (-1,), (3, 2), None)),
    *(Case(f"Unsqueeze {axes}", lambda opset, axes=axes: as_input(opset, 13, "Unsqueeze", "axes", axes), (9, 11, 13)) for axes in ((1,), (2, 4), (4, 2))),
    Case("Unsqueeze from the end", lambda opset: as_input(opset, 13, "Unsqueeze", "axes", (-1,)), (11, 13)),
    slices("of rows", (1,), (7,), (2,), (1,)),
    slices("from the end", (-3,), (2**63 - 1,), (3,), (1,)),
    slices("of two axes", (0, 1), (-1, 100), (1, -1), (1, 1)),
    slices("by steps", (1, 0), (8, 8), (2, 3), (2, 3)),
    slices("backwards", (-1,), (-(2**63),), (3,), (-1,)),
    slices("backwards in part", (6,), (1,), (2,), (-2,)),
    slices("of all images", (0, 1), (2**31 - 1, 3), (0, 1), (1, 1)),
    split("evenly", None, 2, 4),
    split("unevenly", None, 2, 5),
    split("by sizes", (1, 3), 2, 4),
    pad("maps", (0, 0, 1, 2, 0, 0, 3, 0)),
    pad("maps with a value", (0, 0, 1, 2, 0, 0, 3, 0), value=1.5),
    pad("channels", (0, 1, 0, 0, 0, 2, 0, 0)),
    pad("nothing", (0,) * 8),
    pad("negatively", (0, 0, -1, 0, 0, 0, 0, -2)),
    pad("maps", (0, 0, 1, 2, 0, 0, 3, 0), "reflect"),
    pad("maps", (0, 0, 1, 2, 0, 0, 3, 0), "edge"),
    pad("channels and maps", (0, 1, 1, 2, 0, 2, 3, 0), "reflect"),
    pad("maps", (0, 0, 1, 2, 0, 0, 3, 0), "wrap", opsets=(19, 20)),
    Case("Pad of two axes", lambda opset: ([node("Pad", IMAGES, "pads", "", "axes")], {"pads": ints(1, 2, 3, 0), "axes": ints(-1, 2)}), (18, 20)),
    gather("one", 2, np.array(3, np.int64)),
    gather("one from the end", -1, np.array(-2, np.int64)),
    gather("several", 1, ints(2, 0, -1)),
    gather("a table", 3, np.array([[0, 1], [-1, 2]], np.int64)),
    Case("Gather of rows of a table", lambda opset: ([node("Greater", IMAGES, "zero", to="a"), helper.make_node("Cast", ["a"], ["b"], to=7), node("Gather", "table", "b")], {"zero": np.array(0.0, np.float32), "table": noise(2, 4)}), (9, 13)),
]  # fmt: skip

CASES = [*LAYERS, *ARITHMETIC, *RESAMPLING, *REARRANGING]
RUNS = [
    pytest.param(case, opset, batch, id=f"{case.name}, opset {opset}, {batch}")
    for case in CASES
    for opset in case.opsets
    for batch in case.batches
]


@pytest.mark.parametrize("case, opset, batch", RUNS)
def test_operator_computes_what_onnx_runtime_computes(case: Case, opset: int, batch: int | str, tmp_path: Path):
    nodes, weights = case.make(opset)
    model = model_of(nodes, weights, opset=opset, shape=case.shape, batch=batch)
    translation = translated(model, tmp_path)
    step = batch if isinstance(batch, int) else 1
    for count in case.counts:
        images = noise(count * step, *case.shape, seed=count)
        (expected,), actual = computed(model, images), in_torch(translation, images)
        assert actual.dtype == expected.dtype
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_every_operator_has_a_case():
    covered = {node.op_type for case in CASES for opset in case.opsets for node in case.make(opset)[0]}
    assert OPERATIONS.keys() <= covered
