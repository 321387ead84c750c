"""What is given to a network that takes no images, and how it is packed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from practise_deploy.errors import InputError
from practise_deploy.network.graph.packing import packed_width
from practise_deploy.network.onnx_import.file import FileInput, OnnxFile
from practise_deploy.settings import NetworkSource
from practise_deploy.terms import InputSpec, Preprocessing

_DEFAULT = 128


@dataclass(frozen=True, slots=True)
class Samples:
    """What --data holds. shapes, dtypes: of a sample's arrays, by name. lines: of a text file. tokenizer: the folder of the one that reads them."""

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    tokenizer: str = ""


def packed_input(file: OnnxFile, source: NetworkSource, samples: Samples) -> tuple[Preprocessing, tuple[str, ...]]:
    """The inputs of a file that takes no images, as one row of numbers, with notes on what is assumed.

    Raises: InputError where an array of the samples does not fit its input, or settings of images are given.
    """
    unused = [
        name for name in ("mean", "std", "input_size", "resize", "layout", "channel_order") if getattr(source, name)
    ]
    if unused:
        flags = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise InputError(f"{file.path} takes no images, so {flags} cannot be heeded", remedy=f"leave {flags} out")
    notes: list[str] = []
    inputs = tuple(_spec(file, each, source, samples, notes) for each in file.inputs)
    prepared = Preprocessing(
        channels=1,
        size=(1, packed_width(inputs)),
        resize=1,
        mean=(0.0,),
        std=(1.0,),
        interpolation="bilinear",
        augment="none",
        inputs=inputs,
        tokenizer=samples.tokenizer,
    )
    masks = [spec.name for spec in inputs if spec.is_mask]
    notes += [f"'{name}' is taken for a mask of what counts: padding has no say in the refit" for name in masks]
    return prepared, tuple(dict.fromkeys(notes))


def _spec(file: OnnxFile, given: FileInput, source: NetworkSource, samples: Samples, notes: list[str]) -> InputSpec:
    """An input with its sides settled: by the file, by --data, by --sequence-length, else assumed."""
    known = samples.shapes.get(given.name)
    if known is not None and (
        len(known) != len(given.sides) or any(s not in (None, k) for s, k in zip(given.sides, known, strict=True))
    ):
        wanted = "x".join("any" if side is None else str(side) for side in given.sides) or "one number"
        raise InputError(
            f"the array '{given.name}' is {'x'.join(map(str, known)) or 'one number'} for a sample; {file.path} takes {wanted}",
            remedy="give an .npz with an array of that shape for every input, samples along the first axis",
        )
    free = source.sequence_length or _DEFAULT
    if known is None and None in given.sides and source.sequence_length is None:
        notes.append(f"assumed: {free} positions, which the file leaves open (see --sequence-length)")
    sides = known or tuple(free if side is None else side for side in given.sides)
    is_mask = "mask" in given.name.lower() and given.dtype != "float32" and len(sides) == 1
    return InputSpec(name=given.name, dtype=given.dtype, shape=sides, is_mask=is_mask)
