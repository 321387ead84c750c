"""What is done to ONNX files by their fields: names, shapes, types, attributes, cycles, weights that lie elsewhere."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from mutators import TEXTS
from onnx import TensorProto, helper

Rng = random.Random
_DIMS = (0, 1, -1, 2, 3, 17, 10**4, 2**31, 2**40, 2**62, -(2**63))
_PLACES = (
    "../../outside/weights.bin", "weights.bin/../../../outside/weights.bin", "/dev/zero", "/dev/stdin", "/etc/hostname", "pipe", "link", "folder",
    "nowhere.bin", "", ".", "..", "https://example.org/w", "file:///etc/hostname", "./weights.bin", "weights.bin\0", "a\x1b[31mb", "outside.onnx",
)  # fmt: skip


def damage_network(path: Path, rng: Rng) -> str:
    """Change some fields of an ONNX file; gives what."""
    model = onnx.load(path, load_external_data=False)
    told = [_one(model, rng) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    path.write_bytes(model.SerializeToString())
    return "; ".join(told)


def _one(model: onnx.ModelProto, rng: Rng) -> str:
    try:
        return rng.choice(_WAYS)(model, rng)
    except (
        IndexError,
        TypeError,
        ValueError,
    ) as error:  # what was done before left nothing to do it to, or no field takes it
        return f"({type(error).__name__})"


def move_weights(path: Path, rng: Rng) -> str:
    """Let one or all weights of an ONNX file lie where they must not; gives where."""
    model = onnx.load(path, load_external_data=False)
    outside = path.parents[2] / "outside"
    place = rng.choice((*_PLACES, str(outside / "weights.bin"), str(path.parent / "weights.bin")))
    (path.parent / "folder").mkdir()
    (path.parent / "link").symlink_to(outside / "weights.bin")
    os.mkfifo(path.parent / "pipe")
    tensors = list(model.graph.initializer)
    for tensor in tensors if rng.random() < 0.5 else [rng.choice(tensors)]:
        size = 4 * max(1, _count(tensor.dims))
        tensor.ClearField("raw_data")
        del tensor.external_data[:]
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", place), *_extent(size, rng)):
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return f"weights in {place!r}"


def _extent(size: int, rng: Rng) -> list[tuple[str, str]]:
    """offset and length, mostly right."""
    if rng.random() < 0.6:
        return [("offset", "0"), ("length", str(size))]
    odd = ("-1", "", "x", str(2**63), str(2**70), "1e9", "0", str(10**12), "9" * 5000)
    return [("offset", rng.choice(("0", *odd))), ("length", rng.choice((str(size), *odd)))]


def _count(dims: Any) -> int:
    found = 1
    for dim in dims:
        found *= dim
    return found


def _name(model: onnx.ModelProto, rng: Rng) -> str:
    holder = rng.choice(
        (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output, model.graph)
    )
    holder.name = rng.choice(("", *_texts()))
    return f"a name is {holder.name[:20]!r}"


def _texts() -> list[str]:
    return [text for text in TEXTS if text.isprintable() or text.isascii()]


def _shape(model: onnx.ModelProto, rng: Rng) -> str:
    value = rng.choice((*model.graph.input, *model.graph.output))
    dims = value.type.tensor_type.shape.dim
    if not dims or rng.random() < 0.2:
        value.type.tensor_type.ClearField("shape")
        return "a shape left out"
    act, at = rng.choice(("set", "set", "name", "add", "delete")), rng.randrange(len(dims))
    if act == "set":
        dims[at].dim_value = rng.choice(_DIMS)
    elif act == "name":
        dims[at].dim_param = rng.choice(_texts())
    elif act == "add":
        dims.add(dim_value=rng.choice(_DIMS))
    else:
        del dims[at]
    return f"{act} a dimension of an input or output"


def _type(model: onnx.ModelProto, rng: Rng) -> str:
    value = rng.choice((*model.graph.input, *model.graph.output))
    if rng.random() < 0.2:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1
        return "a sequence for a tensor"
    value.type.tensor_type.elem_type = rng.choice((0, 2, 7, 8, 9, 10, 14, 16, 17, 22, 99))
    return f"an input or output of type {value.type.tensor_type.elem_type}"


def _weight_shape(model: onnx.ModelProto, rng: Rng) -> str:
    tensor = rng.choice(model.graph.initializer)
    if tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_DIMS)
    return "a weight of another shape"


def _weight_type(model: onnx.ModelProto, rng: Rng) -> str:
    rng.choice(model.graph.initializer).data_type = rng.choice((0, 2, 6, 7, 8, 9, 10, 11, 14, 16, 17, 22, 99))
    return "a weight of another type"


def _weight_bytes(model: onnx.ModelProto, rng: Rng) -> str:
    tensor = rng.choice(model.graph.initializer)
    data = tensor.raw_data
    tensor.raw_data = rng.choice((b"", data[:-1], data + data, rng.randbytes(len(data)), b"\xff" * len(data)))
    return "a weight of other bytes"


def _operator(model: onnx.ModelProto, rng: Rng) -> str:
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice(
        ("", "Nothing", "Relu", "Conv", "Loop", "If", "Scan", "Reshape", "MatMul", "Softmax", "\x1b[31m", "Identity")
    )
    node.domain = rng.choice(("", "", "", "com.microsoft", "ai.onnx.ml", "nobody"))
    return f"an operator is {node.op_type!r}"


def _edge(model: onnx.ModelProto, rng: Rng) -> str:
    """Another input or output of a node: cycles, doubles, strangers, itself."""
    node = rng.choice(model.graph.node)
    names = [name for one in model.graph.node for name in (*one.input, *one.output)] + ["", "nothing"]
    values = rng.choice((node.input, node.output))
    act = rng.choice(("set", "set", "add", "delete"))
    if act == "add" or not values:
        values.append(rng.choice(names))
    elif act == "set":
        values[rng.randrange(len(values))] = rng.choice(names)
    else:
        del values[rng.randrange(len(values))]
    return f"{act} an edge"


def _attribute(model: onnx.ModelProto, rng: Rng) -> str:
    node = rng.choice(model.graph.node)
    names = [one.name for one in node.attribute] or ["axis", "alpha", "kernel_shape"]
    name = rng.choice(names)
    kept = [one for one in node.attribute if one.name != name or rng.random() < 0.1]
    value: Any = rng.choice(
        ([0, 0], [-1, -1], [2**40, 2**40], [], 0, -1, 2**40, 1e30, float("nan"), "x", "", [1] * 200)
    )
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(
        helper.make_attribute(name, value, attr_type=onnx.AttributeProto.INTS if value == [] else None)
    )
    return f"an attribute {name}"


def _nodes(model: onnx.ModelProto, rng: Rng) -> str:
    nodes, act = list(model.graph.node), rng.choice(("delete", "repeat", "shuffle", "none", "many"))
    if act == "delete":
        del nodes[rng.randrange(len(nodes))]
    elif act == "repeat":
        nodes.append(rng.choice(nodes))
    elif act == "shuffle":
        rng.shuffle(nodes)
    elif act == "many":
        nodes += [helper.make_node("Relu", [f"r{i}"], [f"r{i + 1}"]) for i in range(2000)]
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ([] if act == "none" else nodes)]
    del model.graph.node[:]
    model.graph.node.extend(copied)
    return f"{act} nodes"


def _members(model: onnx.ModelProto, rng: Rng) -> str:
    part = rng.choice(("input", "output", "initializer", "opset_import", "value_info", "graph"))
    if part == "graph":
        model.ClearField("graph")
        model.graph.name = "x"
        model.graph.node.add(op_type="Relu", input=["x"], output=["y"])
        model.graph.initializer.add(name="x", data_type=1)
        model.graph.input.add(name="x")
        model.graph.output.add(name="y")
        return "another graph"
    held = model.opset_import if part == "opset_import" else getattr(model.graph, part)
    if held and rng.random() < 0.5:
        del held[rng.randrange(len(held))]
        if part != "value_info" and not held:
            held.add()
        return f"one {part} deleted"
    held.add(
        **(
            {"domain": "", "version": rng.choice((0, -1, 10**6))}
            if part == "opset_import"
            else {"name": rng.choice(_texts())}
        )
    )
    return f"one {part} added"


def _version(model: onnx.ModelProto, rng: Rng) -> str:
    model.ir_version = rng.choice((0, 1, -1, 2, 3, 99, 2**40))
    for one in model.opset_import:
        one.version = rng.choice((0, -1, 1, 5, 7, 11, 13, 99, 2**40))
    return "other versions"


def _expand(model: onnx.ModelProto, rng: Rng) -> str:
    """An output that asks for more memory than there is."""
    size = rng.choice((10**6, 10**9, 10**11, 2**62))
    shape = helper.make_tensor("huge_shape", TensorProto.INT64, [1], [size])
    model.graph.initializer.append(shape)
    model.graph.node.add(op_type="ConstantOfShape", input=["huge_shape"], output=["huge"])
    model.graph.output[0].name = "huge"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return f"an output of {size} numbers"


_WAYS: tuple[Callable[[onnx.ModelProto, Rng], str], ...] = (
    _name, _shape, _shape, _type, _weight_shape, _weight_shape, _weight_type, _weight_bytes, _operator, _operator, _edge, _edge,
    _attribute, _attribute, _nodes, _members, _version, _expand,
)  # fmt: skip
