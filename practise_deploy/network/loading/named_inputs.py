"""Modules that take several inputs, whole numbers, masks or a dictionary: exported to ONNX, which is what is planned, cut and shipped."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn

from practise_backends.errors import lacks_memory
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.graph.onnx_graph import quiet
from practise_deploy.network.graph.outputs import flattened
from practise_deploy.network.graph.packing import packed, unpacked
from practise_deploy.network.loading.samples import Samples
from practise_deploy.network.onnx_import.nodes import KINDS, SCOPES
from practise_deploy.terms import InputSpec

MASK = "attention_mask"
_MASKED = -10000.0
_LABELS, _IMAGES = "labels", "images"
_OF_IMAGES = 3
"""The axes of an image; an array of one such input alone is one of images."""
_TRIED = 2
_TOLERANCE = 1e-3
_WRAPPED = "network"
"""What the wrappers here and in `hugging_face` call the network in them."""
_TRANSFORMERS = "transformers."
EXPORT = "export it yourself, and give FILE.onnx with the same arrays; a text encoder on disk can be given as hf:FOLDER"
"""The remedy where a module cannot be exported, or its export cannot be read."""


@dataclass(frozen=True, slots=True)
class NamedInputs:
    """How a module takes arrays. names: in order. as_mapping: all in one dictionary, which is its only argument."""

    names: tuple[str, ...]
    as_mapping: bool = False

    def call(self, module: nn.Module, arrays: dict[str, Tensor]) -> Any:
        """What the module gives for the arrays."""
        return module(arrays) if self.as_mapping else module(**arrays)


def named_inputs(module: nn.Module, samples: Samples) -> NamedInputs | None:
    """How a module takes the arrays of the samples; None where it takes images, or nothing that they hold.

    Raises: InputError where they hold a part of what it needs.
    """
    shapes = {name: shape for name, shape in samples.shapes.items() if name != _LABELS}
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in named if p.default is p.empty]
    names = tuple(p.name for p in named if p.name in shapes)
    if names and set(needed) <= shapes.keys():
        return None if len(names) == 1 and _is_of_images(names[0], shapes[names[0]]) else NamedInputs(names)
    if names and _IMAGES not in names:
        missing = [name for name in needed if name not in shapes]
        raise InputError(
            f"the network's forward needs {', '.join(needed)}, and --data has no {' and no '.join(missing)}; it has {', '.join(shapes)}",
            remedy="give --data an .npz with an array for each of them, by these names, samples along the first axis",
        )
    if len(needed) == 1 and shapes and _IMAGES not in shapes and _takes_mapping(module, samples, tuple(shapes)):
        return NamedInputs(tuple(shapes), as_mapping=True)
    return None


def _is_of_images(name: str, shape: Sequence[int]) -> bool:
    return name == _IMAGES or len(shape) == _OF_IMAGES


def _takes_mapping(module: nn.Module, samples: Samples, names: tuple[str, ...]) -> bool:
    try:
        with torch.no_grad():
            module({name: _zeros(samples, name) for name in names})
    except Exception as error:
        if lacks_memory(error):
            raise
        return False
    return len(names) > 1 or not _is_of_images(names[0], samples.shapes[names[0]])


def _zeros(samples: Samples, name: str) -> Tensor:
    """An input of nothing but zeros: float32, bool or int64, by what the samples hold. Shapes: [samples, ...]."""
    kind = samples.dtypes[name]
    dtype = torch.float32 if kind.startswith("float") else torch.bool if kind == "bool" else torch.int64
    return torch.zeros((_TRIED, *samples.shapes[name]), dtype=dtype)


def exported_by_name(module: nn.Module, inputs: NamedInputs, samples: Samples) -> onnx.ModelProto:
    """A module as ONNX, for any number of samples.

    Raises: InputError where it does not run on such arrays, or cannot be exported.
    """
    arrays = tuple(_zeros(samples, name) for name in inputs.names)
    positional = _Positional(module.eval(), inputs)
    what = ", ".join(f"{name} {list(array.shape)}" for name, array in zip(inputs.names, arrays, strict=True))
    try:
        with torch.no_grad():
            positional(*arrays)
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"the network does not run on {what}: {first_line(error)}",
            remedy="give the arrays that its forward takes, by its parameters' names, samples along the first axis",
        ) from None
    by_name = dict(zip(inputs.names, arrays, strict=True))
    if type(module).__module__.startswith(_TRANSFORMERS):
        positional.additive = takes_additive_mask(partial(inputs.call, module), by_name)
    return exported(positional, by_name, positional.outputs)


def exported(module: nn.Module, arrays: Mapping[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    """A module that takes arrays in order as ONNX, for any number of samples. Shapes: arrays [n, ...] each, n of 2 or more.

    Raises: InputError where the exporter cannot express it.
    """
    batch = {0: torch.export.Dim("batch")}
    with quiet():
        try:
            program = torch.onnx.export(
                module,
                tuple(arrays.values()),
                dynamo=True,
                verbose=False,
                input_names=list(arrays),
                output_names=list(outputs),
                dynamic_shapes=(tuple(batch for _ in arrays),),
            )
        except Exception as error:
            if lacks_memory(error):
                raise
            raise InputError(
                f"the network cannot be exported to ONNX: {first_line(error.__cause__ or error)}",
                remedy=EXPORT,
            ) from None
    assert program is not None
    return _named_without_wrapper(program.model_proto)


def _named_without_wrapper(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, with modules named as in the user's network, not as in what is around it here."""
    for node in model.graph.node:
        entries = {entry.key: entry for entry in node.metadata_props}
        if SCOPES not in entries or KINDS not in entries:
            continue
        scopes, kinds = (ast.literal_eval(entries[key].value) for key in (SCOPES, KINDS))
        if len(scopes) > 2 and scopes[1] == _WRAPPED:
            inner = [scope.removeprefix(f"{_WRAPPED}.") for scope in scopes[2:]]
            entries[SCOPES].value, entries[KINDS].value = repr(["", *inner]), repr(kinds[1:])
    return model


def check_export(
    call: Callable[[dict[str, Tensor]], Any], exported_network: nn.Module, rows: Tensor, specs: Sequence[InputSpec]
) -> None:
    """Hold what was exported against the module itself, as its user calls it. Shapes: rows [n, 1, 1, numbers], packed noise.

    Raises: InputError where they differ.
    """
    arrays = {name: torch.from_numpy(array) for name, array in unpacked(rows.numpy(), specs).items()}
    with torch.no_grad():
        wanted = flattened(call(arrays)).values()
        found = flattened(exported_network(rows)).values()
    for original, other in zip(wanted, found, strict=True):
        if not _is_the_same(original, other):
            raise InputError(
                f"what is exported of the network differs from it by up to {float((original.float() - other.float()).abs().max()):.3g}",
                remedy=EXPORT,
            )


def with_additive_mask(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The padding mask as what is added to the attention scores, so that nothing in the graph depends on where padding is.

    This is how encoders of the package transformers take it too. Shapes: mask [n, length] -> [n, 1, 1, length].
    """
    prepared = dict(arrays)
    if MASK in prepared and prepared[MASK].ndim == 2:
        prepared[MASK] = (1.0 - prepared[MASK][:, None, None, :].float()) * _MASKED
    return prepared


def takes_additive_mask(call: Callable[[dict[str, Tensor]], Any], arrays: Mapping[str, Tensor]) -> bool:
    """Whether an encoder computes with `with_additive_mask` what it does with the tokenizer's own mask; DeBERTa does not.

    Shapes: arrays [n, length] each; here the last token alone is padding, so that the mask says something.
    """
    masked = dict(arrays)
    if MASK in masked:
        masked[MASK] = torch.ones_like(masked[MASK])
        masked[MASK][..., -1] = 0
    try:
        with torch.no_grad():
            plain, additive = (flattened(call(each)).values() for each in (masked, with_additive_mask(masked)))
    except Exception as error:
        if lacks_memory(error):
            raise
        return False
    return all(_is_the_same(*pair) for pair in zip(plain, additive, strict=True))


def _is_the_same(original: Tensor, other: Tensor) -> bool:
    original, other = original.float(), other.float()
    scale = float(original.abs().max().clamp_min(1e-6))
    return torch.allclose(original, other, rtol=_TOLERANCE, atol=_TOLERANCE * scale)


class _Positional(nn.Module):
    """A module that takes arrays by name, taking them in order; its outputs' names are known once it ran."""

    def __init__(self, network: nn.Module, inputs: NamedInputs) -> None:
        super().__init__()
        self.network, self.inputs, self.outputs = network, inputs, list[str]()
        self.additive = False

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Shapes: [n, ...] each."""
        by_name = dict(zip(self.inputs.names, arrays, strict=True))
        if self.additive:
            by_name = with_additive_mask(by_name)
        outputs = flattened(self.inputs.call(self.network, by_name))
        self.outputs = list(outputs)
        return tuple(outputs.values())


class OfNamedInputs(nn.Module):
    """A network of packed samples (`network.graph.packing`), taking its inputs one by one, in order or by name."""

    def __init__(self, network: fx.GraphModule, inputs: Sequence[InputSpec]) -> None:
        super().__init__()
        self.network, self.inputs = network, tuple(inputs)

    def forward(self, *arrays: Tensor, **by_name: Tensor) -> Any:
        """Its outputs, as the graph returns them. Shapes: [n, ...] each."""
        names = [spec.name for spec in self.inputs]
        given = dict(zip(names, arrays, strict=False)) | by_name
        if len(arrays) + len(by_name) != len(names) or given.keys() != set(names):
            raise InputError(
                f"the network takes {', '.join(names)}; {', '.join(given) or 'nothing'} was given",
                remedy="give each of them once, in order or by name",
            )
        return self.network(packed(given, self.inputs))
