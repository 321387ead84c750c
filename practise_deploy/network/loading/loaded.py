"""A loaded network: traced, with a summary of it and what it is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import fx

from practise_deploy.network.graph.activations import macs_by_node
from practise_deploy.network.graph.heads import feature_of, join_heads
from practise_deploy.network.graph.structure import fingerprint
from practise_deploy.network.loading.sources import Config
from practise_deploy.network.loading.telling import told_task
from practise_deploy.network.onnx_import.translate import Translation
from practise_deploy.network.tracing.trace import annotate_shapes
from practise_deploy.settings import NetworkSource
from practise_deploy.terms import InputSpec, NetworkSummary, Preprocessing, Task, TaskKind


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
    """Where a module is from: its name, what its weights are, its configuration, the user's file that made it, and what there is to say."""

    name: str
    weights: str
    config: Config = field(default_factory=dict)
    code: bytes = b""
    notes: tuple[str, ...] = ()


def summary_of(
    traced: fx.GraphModule, structure: str, origin: Origin, preprocessing: Preprocessing, task: Task
) -> NetworkSummary:
    """A network in words and numbers."""
    sample = torch.zeros(1, preprocessing.channels, *preprocessing.size)
    assumed = tuple(
        f"assumed: {what} (the network states none; see --input-size, --mean, --std)" for what in preprocessing.assumed
    )
    return NetworkSummary(
        name=origin.name,
        weights=origin.weights,
        sha256=fingerprint(traced, structure),
        parameters=sum(weight.numel() for weight in traced.parameters()),
        macs=sum(macs_by_node(traced, sample).values()),
        output_classes=_classes(task),
        feature=feature_of(traced).name,
        preprocessing=preprocessing,
        notes=(*origin.notes, *assumed, *_task_note(task)),
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


def prepared_task(
    traced: fx.GraphModule,
    source: NetworkSource,
    metadata: Mapping[str, str],
    shape: tuple[int, ...],
    inputs: Sequence[InputSpec] = (),
) -> Task:
    """What a traced network is judged by; its heads' inputs are made one value where there are several, without padding.

    inputs: of a network that takes no images.
    """
    sample = "image" if not inputs else "text" if any(spec.is_mask for spec in inputs) else "sample"
    task = replace(told_task(traced, source.task, metadata, shape), sample=sample)
    before = len(traced.graph.nodes)
    join_heads(traced, inputs)
    if len(traced.graph.nodes) > before:
        annotate_shapes(traced, shape)
    return task
