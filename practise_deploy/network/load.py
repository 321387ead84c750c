"""Loading a network: by library name, from a user's Python file, from an ONNX or a torch.export file."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from practise_backends.errors import about, lacks_memory
from practise_backends.files import why_no_file
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.activations import input_of, macs_by_node
from practise_deploy.network.heads import feature_of, join_heads
from practise_deploy.network.hugging_face import DEFAULT_LENGTH, exported_encoder, load_encoder, longest_of
from practise_deploy.network.hugging_face import PREFIX as HUGGING_FACE
from practise_deploy.network.materialise_weights import materialise_weights
from practise_deploy.network.onnx_graph import quiet
from practise_deploy.network.onnx_import.comparison import check_translation
from practise_deploy.network.onnx_import.file import OnnxFile, described, read_onnx
from practise_deploy.network.onnx_import.input_scaling import stated_input
from practise_deploy.network.onnx_import.translate import Translation, sample_of, translate
from practise_deploy.network.operators import module_of
from practise_deploy.network.outputs import NAMES, flatten_outputs, output_node
from practise_deploy.network.samples import Samples, packed_input
from practise_deploy.network.sources import Config, config_of, construct
from practise_deploy.network.telling import told_task
from practise_deploy.network.trace import annotate_shapes, trace
from practise_deploy.network.trial import check_batches
from practise_deploy.network.weights import load_state_dict
from practise_deploy.network.wrappers import name_of, without_wrappers
from practise_deploy.settings import INTERPOLATIONS, NetworkSource
from practise_deploy.terms import NetworkSummary, Preprocessing, Task, TaskKind

_HASHED_TYPES = (type(None), bool, int, float, str, tuple)
Notes = tuple[str, ...]
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True, slots=True)
class Network:
    """A traced network in eval mode, with a summary of it. `trainable` is False for torch.export files.

    structure: sha256 of what it computes besides its weights. translation: of an ONNX file, which is edited where others are exported.
    """

    traced: fx.GraphModule
    summary: NetworkSummary
    trainable: bool
    structure: str
    translation: Translation | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, channels, height, width)."""
        return (1, self.summary.preprocessing.channels, *self.summary.preprocessing.size)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a module is from: its name and configuration, what its weights are, the user's file that made it, and what there is to say."""

    name: str
    config: Config
    weights: str
    code: bytes = b""
    notes: tuple[str, ...] = ()


def load_network(
    source: NetworkSource,
    *,
    structure_only: bool = False,
    image_size: tuple[int, int] | None = None,
    samples: Samples | None = None,
) -> Network:
    """The network that the settings name, with its weights.

    structure_only: pretrained weights are not fetched; enough to inspect blocks or to measure latency.
    image_size: (height, width) of the given images, used where neither network nor settings state a size. samples: what is given to a
    network that takes no images.
    Raises: InputError, EnvironmentProblem.
    """
    if source.network.endswith(".pt2"):
        return _load_exported(Path(source.network), source)
    if source.network.endswith(".onnx"):
        read = read_onnx(Path(source.network), source.layout)
        return _load_onnx(read, source, image_size, samples or Samples())
    if source.network.startswith(HUGGING_FACE):
        return _load_encoder(Path(source.network.removeprefix(HUGGING_FACE)), source, samples or Samples())
    module, config, weights = construct(source, structure_only)
    file = Path(source.network.rpartition(":")[0])
    code = file.read_bytes() if file.suffix == ".py" else b""
    return _network_of(module, Origin(source.network, config, weights, code), source, image_size)


def network_of(module: nn.Module, source: NetworkSource, image_size: tuple[int, int] | None = None) -> Network:
    """The network that a module in this process is, of a copy: the module itself stays as it is.

    image_size: as in `load_network`. Raises: InputError.
    """
    name = name_of(module)
    with about(name):
        copied = _copy_of(module)
    notes = _without_hooks(copied)
    origin = Origin(name, config_of(copied, name), "as the module has them", notes=notes)
    return _network_of(copied, origin, source, image_size)


def _copy_of(module: nn.Module) -> nn.Module:
    """A copy that shares nothing. Tensors that were computed from others, which nothing else copies, are copied by their values."""
    computed = [v for part in module.modules() for v in vars(part).values() if isinstance(v, Tensor) and not v.is_leaf]
    try:
        return copy.deepcopy(module, {id(value): value.detach().clone() for value in computed})
    except Exception as error:
        if lacks_memory(error):
            raise
        raise InputError(
            f"{type(module).__name__} cannot be copied: {first_line(error)}",
            remedy="give a module that copy.deepcopy copies: without handles, locks or process groups among its attributes",
        ) from None


def _without_hooks(module: nn.Module) -> tuple[str, ...]:
    """Take a copy's forward hooks off, which would tell their owner of every run of ours; returns a note where there are some."""
    parts = [part for part in module.modules() if part._forward_hooks]
    for part in parts:
        part._forward_hooks = OrderedDict()
    names = ", ".join(type(part).__name__ for part in parts[:3])
    return (
        (f"forward hooks are left out of the copy (of {names}), with all that they change in outputs",) if parts else ()
    )


def _check_weights(module: nn.Module) -> None:
    """Refuse weights that have no values."""
    name = next((name for name, weight in module.named_parameters() if weight.is_meta), None)
    if name is not None:
        raise InputError(
            f"the weight {name} is on the device meta, and has no values",
            remedy="give it values: network.to_empty(device='cpu'), and then load its weights",
        )


def _network_of(
    module: nn.Module, origin: Origin, source: NetworkSource, image_size: tuple[int, int] | None
) -> Network:
    """The module traced, which is changed on the way."""
    weights, weight_notes = origin.weights, tuple[str, ...]()
    with about(origin.name):
        module, wrapper_notes = without_wrappers(module)
    if source.weights is not None:
        weight_notes = load_state_dict(module, source.weights)
        weights = str(source.weights)
    with about(origin.name):
        _check_weights(module)
        preprocessing = _preprocessing(origin.config, source, image_size)
        module, materialise_notes = materialise_weights(module)
        shape = (1, preprocessing.channels, *preprocessing.size)
        traced, leaves = trace(module, shape)
        check_batches(traced)
        task = _prepared(traced, source, {}, shape)
    leaf_notes = tuple(f"{name} could not be traced into and counts as one operation" for name in leaves)
    notes = (*origin.notes, *wrapper_notes, *weight_notes, *materialise_notes, *leaf_notes)
    structure = structure_of(traced, origin.code)
    summary = _summary(traced, structure, origin.name, weights, preprocessing, task, notes)
    for weight in traced.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
    return Network(traced, summary, True, structure)


def _preprocessing(config: Config, source: NetworkSource, image_size: tuple[int, int] | None) -> Preprocessing:
    """From the settings, else from the network's configuration, else assumed, with a note."""
    network_channels, *size = config.get("input_size", (3, *(image_size or (224, 224))))
    channels = len(source.mean or source.std or range(network_channels))
    assumed = [] if "input_size" in config or source.input_size else [f"input size {size[0]}x{size[1]}"]
    if source.input_size:
        size = list(source.input_size)
    configured = config if channels == network_channels else {}
    defaults = _IMAGENET if channels == 3 else {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    normalisation = {name: getattr(source, name) or configured.get(name) for name in defaults}
    mean, std = (tuple(normalisation[name] or defaults[name]) for name in defaults)
    if missing := [f"{name} {defaults[name]}" for name in defaults if not normalisation[name]]:
        assumed.append(" and ".join(missing))
    if len(mean) != channels or len(std) != channels:
        raise InputError(
            f"mean has {len(mean)} numbers and std {len(std)}, for {channels} input channels",
            remedy="give --mean and --std as many numbers each as the network takes channels",
        )
    mode = config.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        assumed.append(f"centre crops, where the network's configuration asks for crop_mode '{mode}',")
    interpolation = source.interpolation or config.get("interpolation") or "bilinear"
    if interpolation not in INTERPOLATIONS:
        raise InputError(
            f"the network's configuration asks for interpolation '{interpolation}'",
            remedy=f"give --interpolation: {', '.join(INTERPOLATIONS)}",
        )
    return Preprocessing(
        channels=channels,
        size=(size[0], size[1]),
        resize=_resize(config, source, min(size)),
        squash=config.get("crop_mode") == "squash" and not source.resize,
        mean=mean,
        std=std,
        interpolation=interpolation,
        augment=source.augment or config.get("augment") or "crop-flip",
        assumed=tuple(assumed),
        channel_order=source.channel_order or "rgb",
    )


def _resize(config: Config, source: NetworkSource, side: int) -> int:
    """The shorter side before the crop: from the settings, the configuration, or the usual share. side: that after the crop."""
    share = config.get("crop_pct") or (0.875 if side > 64 else 1.0)
    configured = None if source.input_size else config.get("resize")
    resize = int(source.resize or configured or math.floor(side / share))
    if resize < side:
        origin = "--resize" if source.resize else "the network's own configuration resizes to"
        raise InputError(
            f"{origin} {resize} is smaller than the input, whose shorter side is {side}",
            remedy="give --resize, at least the input's shorter side",
        )
    return resize


def _summary(
    traced: fx.GraphModule,
    structure: str,
    name: str,
    weights: str,
    preprocessing: Preprocessing,
    task: Task,
    notes: tuple[str, ...],
) -> NetworkSummary:
    sample = torch.zeros(1, preprocessing.channels, *preprocessing.size)
    notes += tuple(
        f"assumed: {what} (the network states none; see --input-size, --mean, --std)" for what in preprocessing.assumed
    )
    return NetworkSummary(
        name=name,
        weights=weights,
        sha256=fingerprint(traced, structure),
        parameters=sum(weight.numel() for weight in traced.parameters()),
        macs=sum(macs_by_node(traced, sample).values()),
        output_classes=_classes(task),
        feature=feature_of(traced).name,
        preprocessing=preprocessing,
        notes=(*notes, *_task_note(task)),
        task=task,
    )


def _classes(task: Task) -> int | None:
    """How many classes labels may name; None where the network is no classifier."""
    if task.kind is TaskKind.BINARY:
        return 2
    return math.prod(task.shapes[task.output]) if task.kind is TaskKind.CLASSIFICATION else None


def _task_note(task: Task) -> tuple[str, ...]:
    """How the network is judged, where that is not plain."""
    others = [name for at, name in enumerate(task.names) if at != task.output]
    several = bool(others) and task.kind not in (TaskKind.DETECTION, TaskKind.CUSTOM)
    judged = (
        f", by its output '{task.names[task.output]}'; {', '.join(others)}: compared, not judged" if several else ""
    )
    if not task.reason or (task.kind is TaskKind.CLASSIFICATION and not several):
        return (f"judged as {task.kind.value}{judged}",) if several else ()
    return (f"judged as {task.kind.value}{judged}: {task.reason} (see --task)",)


def _prepared(
    traced: fx.GraphModule, source: NetworkSource, metadata: Mapping[str, str], shape: tuple[int, ...]
) -> Task:
    """What the network is judged by; its heads' inputs are made one value where there are several."""
    task = told_task(traced, source.task, metadata, shape)
    before = len(traced.graph.nodes)
    join_heads(traced)
    if len(traced.graph.nodes) > before:
        annotate_shapes(traced, shape)
    return task


def structure_of(traced: fx.GraphModule, source: bytes = b"") -> str:
    """sha256 of all that a network computes besides its weights. source: the user's file that it is from."""
    digest = hashlib.sha256(source)
    for node in traced.graph.nodes:
        module = module_of(traced, node)
        cls = type(module)
        kind = "" if module is None else f"{cls.__module__}.{cls.__qualname__} {module!r} {_definition(module)}"
        digest.update(
            f"{node.op} {node.name} {_target_name(node)} {node.args} {node.kwargs} {node.meta.get('shape')} {kind}\n".encode()
        )
    return digest.hexdigest()


def _definition(module: nn.Module) -> str:
    """A custom module's simple attributes and its class's source, on which its result depends."""
    if type(module).__module__.partition(".")[0] in ("torch", "torchvision", "timm"):
        return ""
    values = sorted((name, value) for name, value in vars(module).items() if isinstance(value, _HASHED_TYPES))
    try:
        return f"{values} {inspect.getsource(type(module))}"
    except (OSError, TypeError):
        return f"{values}"


def _target_name(node: fx.Node) -> str:
    """What a node calls, by a name that is the same in every process."""
    if isinstance(node.target, str):
        return node.target
    function = node.target
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', None) or getattr(function, '__name__', type(function))}"


def fingerprint(traced: fx.GraphModule, structure: str) -> str:
    """sha256 of a network's structure and weights."""
    digest = hashlib.sha256(structure.encode())
    for name, value in sorted(traced.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_size(path: Path, source: NetworkSource, sides: tuple[int | None, ...]) -> None:
    """Refuse another size than a file is for. sides: (height, width), None where it takes any."""
    wanted = source.input_size
    if wanted is not None and any(side not in (None, given) for side, given in zip(sides, wanted, strict=True)):
        fixed = "x".join("any" if side is None else str(side) for side in sides)
        raise InputError(
            f"{path} takes inputs of {fixed}, not {wanted[0]}x{wanted[1]}", remedy="leave --input-size out"
        )


def _load_onnx(
    file: OnnxFile, source: NetworkSource, image_size: tuple[int, int] | None, samples: Samples, notes: Notes = ()
) -> Network:
    """An ONNX file: translated to torch, and compared with ONNX Runtime on noise."""
    if source.weights is not None:
        raise InputError(
            f"{file.path} has its weights in it; --weights cannot replace them", remedy="leave --weights out"
        )
    if file.takes_images:
        preprocessing, stated = _image_input(file, source, image_size)
    else:
        preprocessing, stated = packed_input(file, source, samples)
    shape = (1, preprocessing.channels, *preprocessing.size)
    with about(file.path):
        translation = translate(file, shape[1:], preprocessing.inputs)
        traced = translation.network
        flatten_outputs(traced)
        output_node(traced).meta[NAMES] = tuple(output.name for output in file.model.graph.output)
        annotate_shapes(traced, shape)
        check_batches(traced)
        check_translation(translation, sample_of(max(2, file.batch or 0), shape[1:], preprocessing.inputs))
        task = _prepared(traced, source, {entry.key: entry.value for entry in file.model.metadata_props}, shape)
    structure = structure_of(traced)
    summary = _summary(traced, structure, source.network, "in the file", preprocessing, task, (*notes, *stated))
    return Network(traced, summary, True, structure, translation)


def _load_encoder(folder: Path, source: NetworkSource, samples: Samples) -> Network:
    """A Hugging Face folder: exported to ONNX for texts of one length, which is what is shipped."""
    encoder = load_encoder(folder)
    length = source.sequence_length or (longest_of(encoder, list(samples.lines)) if samples.lines else DEFAULT_LENGTH)
    if length > encoder.longest:
        raise InputError(
            f"{folder} takes {encoder.longest} tokens at most, not {length}", remedy="give --sequence-length"
        )
    model = exported_encoder(encoder, length)
    told = "as --sequence-length says" if source.sequence_length else (
        "the longest text of --data" if samples.lines else "assumed (see --sequence-length)"
    )  # fmt: skip
    notes = (*encoder.notes, f"planned, measured and shipped for texts of {length} tokens, {told}")
    return _load_onnx(described(folder, model), source, None, Samples(tokenizer=str(folder)), notes)


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
    preprocessing = replace(_preprocessing(config, source, image_size), layout=file.layout)
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


def _load_exported(path: Path, source: NetworkSource) -> Network:
    """A torch.export file: it can be inspected, measured and exported, not finetuned."""
    if problem := why_no_file(path):
        raise InputError(problem, remedy="give the path of a file that torch.export.save wrote")
    if source.weights is not None:
        raise InputError(f"{path} has its weights in it; --weights cannot replace them", remedy="leave --weights out")
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
    preprocessing = _preprocessing({"input_size": shape[1:]}, source, None)
    if preprocessing.channels != shape[1]:
        raise InputError(
            f"{path} takes {shape[1]} channels, not {preprocessing.channels}",
            remedy=f"give --mean and --std {shape[1]} numbers each",
        )
    shape = (1, *shape[1:]) if _accepts_one_image(traced, shape) else shape
    annotate_shapes(traced, shape)
    task = _prepared(traced, source, {}, shape)
    structure = structure_of(traced)
    summary = _summary(
        traced,
        structure,
        str(path),
        "in the file",
        preprocessing,
        task,
        ("a torch.export file: measured and exported, not finetuned",),
    )
    return Network(traced, summary, False, structure)


def _accepts_one_image(traced: fx.GraphModule, shape: tuple[int, ...]) -> bool:
    try:
        traced(torch.zeros(1, *shape[1:]))
        return True
    except Exception as error:
        if lacks_memory(error):
            raise
        return False
