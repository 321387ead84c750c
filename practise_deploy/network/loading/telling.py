"""What a network's outputs say, told from their shapes and the last operations, where the user does not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn import functional as F

from practise_deploy.errors import InputError
from practise_deploy.network.graph.operators import is_computed, module_of, operation_name, shape_of
from practise_deploy.network.graph.outputs import names_of, outputs_of
from practise_deploy.network.loading.sources import function_of_file
from practise_deploy.run import file_digest
from practise_deploy.terms import Scores, Task, TaskKind

_SOFTMAX = {torch.softmax, F.softmax, "softmax", torch.ops.aten.softmax.int, torch.ops.aten._softmax.default}
_SIGMOID = {torch.sigmoid, F.sigmoid, "sigmoid", torch.ops.aten.sigmoid.default}
_NORMALISE = {F.normalize}
_BOUNDED = {torch.tanh, F.tanh, "tanh", torch.ops.aten.tanh.default}
_OF_VECTORS = ("norm", "layer norm", "tanh")
"""Operations that no scores of classes end in."""
_OF_EMBEDDINGS = re.compile("embed|pooler|feature")
"""In the name of an output that is an embedding."""
_REARRANGING = {
    torch.reshape, torch.flatten, torch.squeeze, torch.unsqueeze, torch.permute, torch.transpose,
    "reshape", "view", "flatten", "squeeze", "unsqueeze", "permute", "transpose", "contiguous", "float",
}  # fmt: skip
_FINEST = 64
"""Maps with fewer positions than this share of the pixels are features, not answers for every pixel."""
_MOST_CLASSES = 512
_LOOKED_BACK = 4


def told_task(traced: fx.GraphModule, asked: str | None, metadata: Mapping[str, str], shape: tuple[int, ...]) -> Task:
    """The task of a network.

    asked: the user's kind or metric. metadata: of the file that the network is from. shape: (1, channels, height, width) of its input.
    Raises: InputError where its outputs do not suit the kind.
    """
    outputs = outputs_of(traced)
    shapes = tuple((shape_of(output) or ())[1:] for output in outputs)
    plain = Task(names=names_of(traced), shapes=shapes)
    if asked is not None and ".py:" in asked:
        path, _, function = asked.rpartition(":")
        function_of_file(Path(path), function)  # refused now where it is not there
        return replace(plain, kind=TaskKind.CUSTOM, metric=asked, metric_sha256=file_digest(Path(path)))
    told = [_told(traced, *named, metadata, shape) for named in zip(outputs, plain.names, strict=True)]
    if asked in (None, "auto"):
        return _auto(plain, told, metadata)
    kind = TaskKind(asked)
    number = next((at for at, each in enumerate(shapes) if _suits(kind, each)), None)
    if number is None:
        raise InputError(
            f"--task {kind.value} does not suit outputs of shape {' and '.join(map(str, shapes))} for a sample",
            remedy=f"give another --task, {told[0].kind.value} for example, or FILE.py:FUNCTION of your own",
        )
    scores = Scores.PROBABILITIES if _last(traced, outputs[number]) in ("softmax", "sigmoid") else Scores.LOGITS
    return replace(plain, kind=kind, scores=scores, output=number)


def _auto(plain: Task, told: list[Task], metadata: Mapping[str, str]) -> Task:
    """The task of the first output that says more than values."""
    if metadata.get("task") == "detect":
        return replace(plain, kind=TaskKind.DETECTION, reason="the file's metadata say 'detect'")
    if {"boxes", "scores"} <= {name.rsplit(".", 1)[-1] for name in plain.names}:
        return replace(plain, kind=TaskKind.DETECTION, reason="it has outputs named boxes and scores")
    vague = (TaskKind.REGRESSION, TaskKind.EMBEDDING)
    number = next((at for at, task in enumerate(told) if task.kind not in vague), 0)
    chosen = told[number]
    return replace(plain, kind=chosen.kind, scores=chosen.scores, output=number, reason=chosen.reason)


def _told(
    traced: fx.GraphModule, output: fx.Node, name: str, metadata: Mapping[str, str], shape: tuple[int, ...]
) -> Task:
    """What one output says."""
    sides, last = (shape_of(output) or (0,))[1:], _last(traced, output)
    while len(sides) > 1 and sides[-1] == 1:
        sides = sides[:-1]
    what = f"a sample has {'x'.join(map(str, sides)) or 'one'} number{'s' if math.prod(sides) > 1 else ''}, {last or 'no scores'} last"
    scores = Scores.PROBABILITIES if last in ("softmax", "sigmoid") else Scores.LOGITS
    kind = _kind(sides, last, metadata, shape)
    if kind is TaskKind.CLASSIFICATION and _OF_EMBEDDINGS.search(name.lower()):
        kind, what = TaskKind.EMBEDDING, f"the output is called '{name}'"
    if kind is TaskKind.REGRESSION and len(sides) == 2 and not last:
        what += "; where these are boxes or classes of positions, give --task detection or sequence"
    return Task(kind=kind, scores=scores, reason=what)


def _kind(sides: tuple[int, ...], last: str, metadata: Mapping[str, str], shape: tuple[int, ...]) -> TaskKind:
    if math.prod(sides) == 1:
        return TaskKind.BINARY if last == "sigmoid" else TaskKind.REGRESSION
    if len(sides) == 1:
        return (
            TaskKind.MULTI_LABEL
            if last == "sigmoid"
            else TaskKind.EMBEDDING
            if last in _OF_VECTORS
            else TaskKind.CLASSIFICATION
        )
    if len(sides) == 2 and last == "softmax":
        return TaskKind.CTC if "character" in metadata else TaskKind.SEQUENCE
    if len(sides) == 3 and _is_fine(sides, shape):
        single = sides[0] == 1
        return TaskKind.SEGMENTATION if last or not single else TaskKind.REGRESSION
    return TaskKind.REGRESSION


def _is_fine(sides: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a map says something of every few pixels, and of not too many classes."""
    return _FINEST * math.prod(sides[1:]) >= math.prod(shape[2:]) and sides[0] <= _MOST_CLASSES


def _suits(kind: TaskKind, sides: tuple[int, ...]) -> bool:
    """Whether an output of this shape can be of a kind."""
    numbers = math.prod(sides)
    if kind is TaskKind.CLASSIFICATION:
        return numbers > 1 and numbers == (sides or (1,))[0]
    if kind is TaskKind.BINARY:
        return numbers == 1
    if kind is TaskKind.SEGMENTATION:
        return len(sides) == 3
    if kind is TaskKind.EMBEDDING:
        return numbers > 1
    return len(sides) == 2 if kind in (TaskKind.SEQUENCE, TaskKind.CTC, TaskKind.DETECTION) else True


def _last(traced: fx.GraphModule, output: fx.Node) -> str:
    """The operation that an output is of, seen through what only rearranges: softmax, sigmoid, norm, layer norm, tanh, or none of these."""
    node = output
    while (module := module_of(traced, node)) is None and node.target in _REARRANGING:
        node = node.all_input_nodes[0]
    if isinstance(module, (nn.Identity, nn.Flatten)):
        return _last(traced, node.all_input_nodes[0])
    if isinstance(module, nn.Softmax) or node.target in _SOFTMAX:
        return "softmax"
    if isinstance(module, nn.Sigmoid) or node.target in _SIGMOID:
        return "sigmoid"
    if isinstance(module, nn.LayerNorm) or node.target is F.layer_norm:
        return "layer norm"
    if isinstance(module, nn.Tanh) or node.target in _BOUNDED:
        return "tanh"
    is_quotient = getattr(node.target, "__name__", node.target) in ("truediv", "div") and _is_by_norm(node)
    return "norm" if node.target in _NORMALISE or is_quotient else ""


def _is_by_norm(node: fx.Node) -> bool:
    """Whether a value is divided by one number of its own: its length."""
    sources = [source for source in node.all_input_nodes if is_computed(source)]
    if len(sources) != 2:
        return False
    if sources[1].target == "expand":
        sources[1] = sources[1].all_input_nodes[0]
    if not _is_length(sources[1]):
        return False
    before, by = (shape_of(source) or () for source in sources)
    return len(before) == len(by) and bool(by) and by[-1] == 1 < before[-1]


def _is_length(node: fx.Node) -> bool:
    """Whether a value is a norm, or the root of a sum, seen through what bounds it."""
    names = set[str]()
    for _ in range(_LOOKED_BACK):
        names.add(operation_name(node))
        sources = [source for source in node.all_input_nodes if is_computed(source)]
        if not sources:
            break
        node = sources[0]
    return any("norm" in name or name == "l2" for name in names) or {"sqrt", "sum"} <= names
