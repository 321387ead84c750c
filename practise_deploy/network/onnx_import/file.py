"""Reading a user's ONNX file, and refusing what cannot be cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import onnx
from onnx import AttributeProto, TensorProto

from practise_backends.errors import lacks_memory
from practise_backends.files import why_no_file
from practise_deploy.errors import InputError, first_line

_STANDARD = ("", "ai.onnx")
_QUANTISED = {
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
}  # fmt: skip
_OLDEST = 9
_CONVERTED_TO = 9
"""Opset that files before `_OLDEST` are read in."""
_CHANNELS = (1, 3, 4)
MOST_BYTES = 2**31
"""Of a message of protobuf."""
_LOOPS = ("Loop", "Scan", "SequenceMap")
_EXPORT_AGAIN = "export the network again, with opset 13 or later"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """A user's file. model: with its weights in it. input: the images' value. layout: nchw or nhwc.

    shape: of one image as (channels, height, width); None where a side is free. batch: how many images it is for; None for any.
    """

    path: Path
    model: onnx.ModelProto
    input: str
    layout: str
    batch: int | None
    shape: tuple[int | None, int | None, int | None]

    def in_layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape (n, channels, height, width) as the file has its input."""
        return shape if self.layout == "nchw" else (shape[0], *shape[2:], shape[1])


def read_onnx(path: Path, layout: str | None = None) -> OnnxFile:
    """A file with its weights.

    layout: that of its input, where the user states it.
    Raises: InputError for what is no file, no ONNX, quantised, of custom operators, or takes anything but one float tensor of images.
    """
    if problem := why_no_file(path):
        raise InputError(problem, remedy="give the path of an ONNX file")
    model = _loaded(path)
    _check_size(path, model)
    _check_operators(path, model)
    _check_outputs(path, model)
    if opset_of(model) < _OLDEST:
        _converted(path, model)  # refused now where it cannot be read
    images = _images(path, model)
    return _described(path, model, images, layout)


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path)
        if not model.graph.node or not model.opset_import:
            raise ValueError("it holds no network")
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"{path} cannot be read as ONNX: {first_line(error)}",
            remedy="give a file that an ONNX exporter wrote, with the file of its weights beside it where it has one",
        ) from None
    if not any(entry.domain in _STANDARD for entry in model.opset_import):
        raise InputError(f"{path} holds none of ONNX's own operators", remedy="export it of standard operators")
    return model


def _check_size(path: Path, model: onnx.ModelProto) -> None:
    """Refuse what does not fit into one message of ONNX, in which networks are measured and written."""
    if (size := model.ByteSize()) >= MOST_BYTES:
        raise InputError(
            f"{path} holds {size / 2**30:.1f} GiB with its weights, and an ONNX network that is edited at most 2 GiB",
            remedy="give the network's Python as FILE.py:FUNCTION",
        )


def check_batch(file: OnnxFile, batch: int, *, dynamic: bool) -> None:
    """Refuse to measure or to write a file for another number of images than it is fixed to.

    Raises: InputError.
    """
    if file.batch is None or (file.batch == batch and not dynamic):
        return
    flag = "--dynamic-batch" if dynamic else f"--batch {batch}"
    remedy = (
        "export it with a dynamic batch axis, or leave --dynamic-batch out" if dynamic else f"give --batch {file.batch}"
    )
    raise InputError(
        f"{file.path} is for {file.batch} image{'s' * (file.batch > 1)} at a time, which {flag} contradicts",
        remedy=remedy,
    )


def readable(file: OnnxFile) -> tuple[onnx.ModelProto, int]:
    """The network in an opset that can be read, without functions of its own, and that opset. Values keep their names."""
    model, opset = file.model, opset_of(file.model)
    if opset < _OLDEST:
        model, opset = _converted(file.path, model), _CONVERTED_TO
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    return model, opset


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators."""
    return max(entry.version for entry in model.opset_import if entry.domain in _STANDARD)


def images_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no weights: old files list those among them."""
    weights = {weight.name for weight in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _converted(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, _CONVERTED_TO)
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"{path} is of opset {opset_of(model)}, which cannot be read as opset {_CONVERTED_TO}: {first_line(error)}",
            remedy=_EXPORT_AGAIN,
        ) from None


def nodes_in(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a graph and of the graphs in them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from nodes_in(attribute.g)


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    """Refuse quantised networks and operators that are not ONNX's own."""
    own = {(function.domain, function.name) for function in model.functions}
    for node in chain(nodes_in(model.graph), *(nodes_in(function) for function in model.functions)):
        where = f"(node '{node.name or next(iter(node.output), '')}')"
        if node.op_type in _QUANTISED:
            raise InputError(
                f"{path} is quantised already: it holds {node.op_type} {where}, and integers cannot be fitted",
                remedy="give the file from before quantisation, and --precision int8 to ship it so",
            )
        if node.op_type in _LOOPS and node.domain in _STANDARD:
            raise InputError(
                f"{path} holds the loop {node.op_type} {where}, and blocks cannot be found in a network that repeats itself",
                remedy="export the network with its loops written out",
            )
        if node.domain not in _STANDARD and (node.domain, node.op_type) not in own:
            optimised = node.domain.startswith("com.microsoft")
            raise InputError(
                f"{path} holds the operator {node.domain}.{node.op_type} {where}, which is not ONNX's own",
                remedy="give the file from before ONNX Runtime optimised it"
                if optimised
                else "export it of standard operators",
            )


def _check_outputs(path: Path, model: onnx.ModelProto) -> None:
    for output in model.graph.output:
        kind = output.type.WhichOneof("value")
        if kind not in (None, "tensor_type"):
            raise InputError(
                f"the output '{output.name}' of {path} is a {str(kind).removesuffix('_type').replace('_', ' ')}, not a tensor",
                remedy="export the network with tensors for its outputs",
            )


def _images(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The one input."""
    inputs = images_of(model)
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise InputError(
            f"{path} has {len(inputs)} inputs ({names}); it is run with one tensor of images alone",
            remedy="export the network with its images as the only input, and the rest as constants",
        )
    kind = inputs[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim) != 4:
        dtype = TensorProto.DataType.Name(kind.elem_type).lower()
        raise InputError(
            f"the input '{inputs[0].name}' of {path} is {dtype} with {len(kind.shape.dim)} axes, not images, float with 4",
            remedy="export the network in float32, with images for its input; --precision fp16 ships it so",
        )
    return inputs[0]


def _described(path: Path, model: onnx.ModelProto, images: onnx.ValueInfoProto, layout: str | None) -> OnnxFile:
    dims = [dim.dim_value if dim.dim_value > 0 else None for dim in images.type.tensor_type.shape.dim]
    told = "nhwc" if dims[3] in _CHANNELS and dims[1] not in _CHANNELS else "nchw"
    channels = dims[3 if layout == "nhwc" else 1]
    if layout not in (None, told) and channels is not None and channels not in _CHANNELS:
        raise InputError(
            f"the input '{images.name}' of {path} has {channels} values where --layout {layout} says that the channels are",
            remedy=f"leave --layout out, or give --layout {told}",
        )
    layout = layout or told
    first, second, third = dims[1:] if layout == "nchw" else (dims[3], dims[1], dims[2])
    return OnnxFile(
        path=path, model=model, input=images.name, layout=layout, batch=dims[0], shape=(first, second, third)
    )
