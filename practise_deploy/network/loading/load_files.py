"""Loading networks from files: ONNX, torch.export, and Hugging Face folders, which become ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from practise_backends.errors import about, lacks_memory
from practise_backends.files import why_no_file
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.graph.activations import input_of
from practise_deploy.network.graph.onnx_graph import quiet
from practise_deploy.network.graph.outputs import NAMES, flatten_outputs, output_node
from practise_deploy.network.graph.structure import structure_of
from practise_deploy.network.loading.hugging_face import DEFAULT_LENGTH, exported_encoder, load_encoder, longest_of
from practise_deploy.network.loading.loaded import Network, Origin, prepared_task, summary_of
from practise_deploy.network.loading.named_inputs import EXPORT, NamedInputs, check_export, exported_by_name
from practise_deploy.network.loading.preprocessing import preprocessing_of
from practise_deploy.network.loading.samples import Samples, packed_input
from practise_deploy.network.onnx_import.comparison import check_translation
from practise_deploy.network.onnx_import.file import OnnxFile, described
from practise_deploy.network.onnx_import.input_scaling import stated_input
from practise_deploy.network.onnx_import.translate import Translation, sample_of, translate
from practise_deploy.network.tracing.trace import annotate_shapes
from practise_deploy.network.tracing.trial import check_batches
from practise_deploy.settings import NetworkSource
from practise_deploy.terms import Preprocessing

Notes = tuple[str, ...]
_IN_THE_FILE = "in the file"


def _check_size(path: Path, source: NetworkSource, sides: tuple[int | None, ...]) -> None:
    """Refuse another size than a file is for. sides: (height, width), None where it takes any."""
    wanted = source.input_size
    if wanted is not None and any(side not in (None, given) for side, given in zip(sides, wanted, strict=True)):
        fixed = "x".join("any" if side is None else str(side) for side in sides)
        raise InputError(
            f"{path} takes inputs of {fixed}, not {wanted[0]}x{wanted[1]}", remedy="leave --input-size out"
        )


def load_onnx(
    file: OnnxFile, source: NetworkSource, image_size: tuple[int, int] | None, samples: Samples, notes: Notes = ()
) -> Network:
    """An ONNX file, with its weights in it."""
    if source.weights is not None:
        raise InputError(
            f"{file.path} has its weights in it; --weights cannot replace them", remedy="leave --weights out"
        )
    return _translated_network(file, source, image_size, samples, Origin(source.network, _IN_THE_FILE, notes=notes))


def load_by_name(
    module: nn.Module, inputs: NamedInputs, origin: Origin, source: NetworkSource, samples: Samples
) -> Network:
    """A module that takes the samples' arrays: exported to ONNX, which is what is shipped."""
    model = exported_by_name(module, inputs, samples)
    note = f"exported to ONNX as it takes {', '.join(inputs.names)}, which is what is planned, cut and shipped"
    origin = replace(origin, notes=(*origin.notes, note))
    try:
        network = _translated_network(described(Path(origin.name), model), source, None, samples, origin)
    except InputError as error:
        if "FILE.py" in error.remedy:  # that is what was given
            error.remedy = EXPORT
        raise
    return _held_against(partial(inputs.call, module), network, origin.name)


def _held_against(call: Callable[[dict[str, Tensor]], Any], network: Network, name: str | Path) -> Network:
    """The network, once it computes on noise what the module does that it was exported from."""
    specs = network.summary.preprocessing.inputs
    with about(name):
        check_export(call, network.traced, sample_of(2, network.input_shape[1:], specs), specs)
    return network


def _translated_network(
    file: OnnxFile, source: NetworkSource, image_size: tuple[int, int] | None, samples: Samples, origin: Origin
) -> Network:
    """A file's network, translated to torch, and compared with ONNX Runtime on noise."""
    if file.takes_images:
        preprocessing, stated = _image_input(file, source, image_size)
    else:
        preprocessing, stated = packed_input(file, source, samples)
    shape = (1, preprocessing.channels, *preprocessing.size)
    with about(file.path):
        translation = _translated(file, shape[1:], preprocessing)
        traced = translation.network
        flatten_outputs(traced)
        output_node(traced).meta[NAMES] = tuple(output.name for output in file.model.graph.output)
        annotate_shapes(traced, shape)
        check_batches(traced)
        check_translation(translation, sample_of(max(2, file.batch or 0), shape[1:], preprocessing.inputs))
        metadata = {entry.key: entry.value for entry in file.model.metadata_props}
        task = prepared_task(traced, source, metadata, shape, preprocessing.inputs)
    structure = structure_of(traced)
    summary = summary_of(traced, structure, replace(origin, notes=(*origin.notes, *stated)), preprocessing, task)
    return Network(traced, summary, True, structure, translation)


def _translated(file: OnnxFile, shape: tuple[int, ...], preprocessing: Preprocessing) -> Translation:
    """The network in torch; where that fails for a size that was assumed, the size is what to give."""
    try:
        return translate(file, shape, preprocessing.inputs)
    except InputError as error:
        if any(what.startswith("input size") for what in preprocessing.assumed):
            error.remedy = (
                f"give the size that it is for with --input-size, HEIGHTxWIDTH: {shape[1]}x{shape[2]} was assumed"
            )
        raise


def load_encoder_folder(folder: Path, source: NetworkSource, samples: Samples) -> Network:
    """A Hugging Face folder: exported to ONNX for texts of one length, which is what is shipped."""
    encoder = load_encoder(folder)
    length = source.sequence_length or (
        longest_of(encoder, list(samples.lines)) if samples.lines else min(DEFAULT_LENGTH, encoder.longest)
    )
    if length > encoder.longest:
        raise InputError(
            f"{folder} takes {encoder.longest} tokens at most, not {length}",
            remedy=f"give --sequence-length {encoder.longest}, or less",
        )
    model = exported_encoder(encoder, length)
    told = "as --sequence-length says" if source.sequence_length else (
        "the longest text of --data" if samples.lines else "assumed (see --sequence-length)"
    )  # fmt: skip
    notes = (*encoder.notes, f"planned, measured and shipped for texts of {length} tokens, {told}")
    source = source.model_copy(update={"task": source.task or encoder.task})
    network = load_onnx(described(folder, model), source, None, Samples(tokenizer=str(folder)), notes)
    return _held_against(encoder.as_the_library_calls_it, network, folder)


def _image_input(
    file: OnnxFile, source: NetworkSource, image_size: tuple[int, int] | None
) -> tuple[Preprocessing, Notes]:
    """How images are made for a file, with notes on who says so."""
    path = file.path
    _check_size(path, source, file.shape[1:])
    stated = stated_input(file)
    channels, height, width = file.shape
    config = dict(stated.config)
    if height is not None and width is not None:
        config["input_size"] = (channels or 3, height, width)
    elif source.input_size is None and image_size is not None:
        config.setdefault("input_size", (channels or 3, *image_size))
    preprocessing = replace(preprocessing_of(config, source, image_size), layout=file.layout)
    if channels not in (None, preprocessing.channels):
        raise InputError(
            f"{path} takes {channels} channels, not {preprocessing.channels}",
            remedy=f"give --mean and --std {channels} numbers each",
        )
    return preprocessing, (*stated.notes, *_free_axes_notes(file, preprocessing))


def _free_axes_notes(file: OnnxFile, preprocessing: Preprocessing) -> tuple[str, ...]:
    """What a network that takes images of any size, or of any channels, is planned and measured with."""
    channels, *sides = file.shape
    height, width = preprocessing.size
    notes = []
    if None in sides:
        notes.append(
            f"the file takes images of any size; it is planned and measured with {height}x{width} (see --input-size)"
        )
    if channels is None:
        notes.append(f"the file leaves its channels open; {preprocessing.channels} are assumed (see --mean)")
    return tuple(notes)


def load_exported(path: Path, source: NetworkSource) -> Network:
    """A torch.export file: it can be inspected, measured and exported, not finetuned."""
    if problem := why_no_file(path):
        raise InputError(problem, remedy="give the path of a file that torch.export.save wrote")
    if source.weights is not None:
        raise InputError(f"{path} has its weights in it; --weights cannot replace them", remedy="leave --weights out")
    traced = _exported(path)
    with about(path):
        flatten_outputs(traced)
    traced.graph.set_codegen(fx.graph.CodeGen())  # the file's own expects exactly its outputs
    traced.recompile()
    example_input = input_of(traced).meta["val"]
    shape = tuple(int(side) for side in example_input.shape)
    if len(shape) != 4 or example_input.dtype != torch.float32:
        raise InputError(
            f"{path} takes {str(example_input.dtype).removeprefix('torch.')}{list(shape)}, not images float32[n, channels, height, width]",
            remedy="export the network in float32, with images for its input",
        )
    _check_size(path, source, shape[2:])
    preprocessing = preprocessing_of({"input_size": shape[1:]}, source, None)
    if preprocessing.channels != shape[1]:
        raise InputError(
            f"{path} takes {shape[1]} channels, not {preprocessing.channels}",
            remedy=f"give --mean and --std {shape[1]} numbers each",
        )
    shape = (1, *shape[1:]) if _accepts_one_image(traced, shape) else shape
    annotate_shapes(traced, shape)
    task = prepared_task(traced, source, {}, shape)
    structure = structure_of(traced)
    origin = Origin(str(path), _IN_THE_FILE, notes=("a torch.export file: measured and exported, not finetuned",))
    summary = summary_of(traced, structure, origin, preprocessing, task)
    return Network(traced, summary, False, structure)


def _exported(path: Path) -> fx.GraphModule:
    try:
        with quiet():
            program = torch.export.load(path)
            traced = program.run_decompositions({}).module()
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"{path} is no torch.export file: {first_line(error)}",
            remedy="write it again with torch.export.save and this version of torch, or give the network as FILE.py:FUNCTION",
        ) from None
    assert isinstance(traced, fx.GraphModule)
    return traced


def _accepts_one_image(traced: fx.GraphModule, shape: tuple[int, ...]) -> bool:
    try:
        traced(torch.zeros(1, *shape[1:]))
        return True
    except Exception as error:
        if lacks_memory(error):
            raise
        return False
