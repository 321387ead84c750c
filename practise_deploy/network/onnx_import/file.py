"""Reading a user's ONNX file, and refusing what cannot be cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import onnx
from onnx import AttributeProto, TensorProto

from practise_backends.errors import lacks_memory
from practise_backends.files import why_no_file
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.graph.onnx_graph import check_size

_STANDARD = ("", "ai.onnx")
_QUANTISED = {
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
}  # fmt: skip
_OLDEST = 9
_CONVERTED_TO = 9
"""Opset that files before `_OLDEST` are read in."""
_CHANNELS = (1, 3, 4)
_DTYPES: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.INT64: "int64",
    TensorProto.INT32: "int32",
    TensorProto.BOOL: "bool",
}
_LOOPS = ("Loop", "Scan", "SequenceMap")
_EXPORT_AGAIN = "export the network again, with opset 13 or later"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInput:
    """An input of a file. dtype: numpy's name of its type. sides: of one sample, None where one is free."""

    name: str
    dtype: str
    sides: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """A user's file. model: with its weights in it. inputs: all of them. layout: of images, nchw or nhwc.

    batch: how many samples it is for; None for any.
    """

    path: Path
    model: onnx.ModelProto
    inputs: tuple[FileInput, ...]
    layout: str
    batch: int | None

    @property
    def takes_images(self) -> bool:
        """Whether its only input are images."""
        return _is_of_images(self.inputs)

    @property
    def shape(self) -> tuple[int | None, int | None, int | None]:
        """Of one image as (channels, height, width), None where a side is free."""
        first, second, third = self.inputs[0].sides
        return (first, second, third) if self.layout == "nchw" else (third, first, second)

    @property
    def has_free_sides(self) -> bool:
        """Whether any input leaves more open than how many samples there are."""
        return any(None in each.sides for each in self.inputs)

    def in_layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape (n, channels, height, width) as the file has its images."""
        return shape if self.layout == "nchw" else (shape[0], *shape[2:], shape[1])


def read_onnx(path: Path, layout: str | None = None) -> OnnxFile:
    """A file with its weights.

    layout: that of its input, where the user states it.
    Raises: InputError for what is no file, no ONNX, quantised, of custom operators, or takes what is no tensor with a batch.
    """
    if problem := why_no_file(path):
        raise InputError(problem, remedy="give the path of an ONNX file")
    model = _loaded(path)
    check_size(model, str(path))
    _check_operators(path, model)
    _check_outputs(path, model)
    if opset_of(model) < _OLDEST:
        _converted(path, model)  # refused now where it cannot be read
    return described(path, model, layout)


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


def check_batch(file: OnnxFile, batch: int, *, dynamic: bool) -> None:
    """Refuse to measure or to write a file for another number of images than it is fixed to.

    Raises: InputError.
    """
    if file.batch is None or (file.batch == batch and not dynamic):
        return
    flag = "--dynamic-batch" if dynamic else f"a batch of {batch} (--batch)"
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


def described(path: Path, model: onnx.ModelProto, layout: str | None = None) -> OnnxFile:
    """A model with what it takes. path: to name it by.

    Raises: InputError where it takes what is no tensor of numbers with a batch.
    """
    inputs, batches = [], set()
    for value in images_of(model):
        kind = value.type.tensor_type
        dims = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
        if kind.elem_type not in _DTYPES or not dims:
            dtype = TensorProto.DataType.Name(kind.elem_type).lower()
            raise InputError(
                f"the input '{value.name}' of {path} is {dtype} with {len(dims)} axes, not {', '.join(_DTYPES.values())} with a batch",
                remedy="export the network in float32, with samples along the first axis; --precision fp16 ships it so",
            )
        inputs.append(FileInput(name=value.name, dtype=_DTYPES[kind.elem_type], sides=tuple(dims[1:])))
        batches.add(dims[0])
    if not inputs or len(batches) > 1:
        raise InputError(
            f"{path} takes {'no input' if not inputs else 'inputs of several batches'}",
            remedy="export the network with inputs that all have the samples along their first axis",
        )
    layout = _layout(path, inputs[0], layout) if _is_of_images(inputs) else "nchw"
    return OnnxFile(path=path, model=model, inputs=tuple(inputs), layout=layout, batch=batches.pop())


def _is_of_images(inputs: Sequence[FileInput]) -> bool:
    return len(inputs) == 1 and inputs[0].dtype == "float32" and len(inputs[0].sides) == 3


def _layout(path: Path, images: FileInput, asked: str | None) -> str:
    """The layout of images, asked for or told from their channels."""
    sides = images.sides
    told = "nhwc" if sides[2] in _CHANNELS and sides[0] not in _CHANNELS else "nchw"
    channels = sides[2 if asked == "nhwc" else 0]
    if asked not in (None, told) and channels is not None and channels not in _CHANNELS:
        raise InputError(
            f"the input '{images.name}' of {path} has {channels} values where --layout {asked} says that the channels are",
            remedy=f"leave --layout out, or give --layout {told}",
        )
    return asked or told
