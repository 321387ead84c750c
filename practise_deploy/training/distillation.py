"""The distillation of a teacher into a student: their matched values, the loss, and the error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import mse_loss

from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.activations import (
    batches,
    compute,
    downstream,
    forward,
    input_of,
    node_by_name,
    nodes_to_compute,
    values_of,
)
from practise_deploy.network.graph.execution import Env, execute
from practise_deploy.network.graph.heads import mask_of
from practise_deploy.network.graph.operators import is_computed
from practise_deploy.network.graph.surgery import feature_in, splices
from practise_deploy.refit.prefix_cache import until_cut
from practise_deploy.terms import Block
from practise_deploy.training.schedule import Schedule

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Distillation:
    """A student, its teacher, the values that should match, and the device.

    hints: pairs of further values (the student's, the teacher's) before the features, as `find_hints` gives them.
    shared: values that both have, as `shared_values` gives them.
    """

    student: fx.GraphModule
    teacher: fx.GraphModule
    student_feature: str
    teacher_feature: str
    device: torch.device = _CPU
    hints: tuple[tuple[str, str], ...] = ()
    shared: tuple[str, ...] = ()
    feature_cache: dict[tuple[int, int], tuple[FitImages, list[Tensor]]] = field(default_factory=dict, repr=False)

    def error(self, images: FitImages, batch_size: int) -> float:
        """Mean squared error of the student's features, without augmentation, in eval mode and full precision."""
        self.student.eval()
        node, total = node_by_name(self.student, self.student_feature), 0.0
        parts = batches(len(images), batch_size)
        with torch.no_grad():
            for part, target in zip(parts, self._teacher_features(images, batch_size), strict=True):
                (output,) = forward(self.student, images.batch(part).to(self.device), [node])
                total += float((target - output).float().square().mean()) * len(output)
        return total / len(images)

    def _teacher_features(self, images: FitImages, batch_size: int) -> list[Tensor]:
        """The teacher's features of each batch of these images, computed once. Shapes: [n, ...] each."""
        if (id(images), batch_size) not in self.feature_cache:
            node = node_by_name(self.teacher, self.teacher_feature)
            parts = batches(len(images), batch_size)
            features = [forward(self.teacher, images.batch(part).to(self.device), [node])[0] for part in parts]
            self.feature_cache[id(images), batch_size] = (images, features)  # holding the images keeps its id theirs
        return self.feature_cache[id(images), batch_size][1]

    def loss(self, x: Tensor, schedule: Schedule) -> Tensor:
        """The training loss: the squared error of the features, plus the schedule's further terms.

        Shapes: x [n, channels, height, width] -> [].
        """
        matches = [(self.student_feature, self.teacher_feature), *(self.hints if schedule.hints else ())]
        goals, mask = [node_by_name(self.teacher, name) for _, name in matches], mask_of(self.teacher)
        with torch.no_grad():
            known = self._known(x, schedule)
            targets = values_of(self.teacher, known, goals if mask is None else [*goals, mask])
        counts = None if mask is None else targets[-1] > 0
        outputs = values_of(self.student, known, [node_by_name(self.student, name) for name, _ in matches])
        loss = (relative_error if schedule.scaled else _squared_error)(outputs[0], targets[0])
        if schedule.hints and self.hints:
            pairs = zip(outputs[1:], targets[1 : len(goals)], strict=True)
            errors = [relative_error(_counted(output, counts), _counted(target, counts)) for output, target in pairs]
            loss = loss + schedule.hints * torch.stack(errors).mean()
        return loss

    def _known(self, x: Tensor, schedule: Schedule) -> Env:
        """What is computed once for both networks: the images, and where the layers up to the first cut stay, what these give."""
        start = {input_of(self.teacher).name: x}
        if not schedule.behind_the_cut:
            return start
        nodes = [node_by_name(self.teacher, name) for name in self.shared]
        return start | compute(self.teacher, nodes_to_compute(nodes, start), start, frozenset(self.shared))


def distillation_of(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    feature: str,
    dropped: Sequence[Block],
    *,
    hints: tuple[tuple[str, str], ...] = (),
    device: torch.device = _CPU,
) -> Distillation:
    """The distillation into a student without these blocks. feature: the teacher's. hints: those that `find_hints` gives."""
    own = feature_in(student, feature, dropped)
    return Distillation(student, teacher, own, feature, device, hints, shared_values(student, teacher, own, dropped))


def shared_values(
    student: fx.GraphModule, teacher: fx.GraphModule, feature: str, dropped: Sequence[Block]
) -> tuple[str, ...]:
    """The values that the rest of the student reads of what it has in common with its teacher, as long as no layer up to there is trained.

    That ends at the first cut, and before the first layer with other weights than the teacher's: a refit changes the last writer before a
    cut too. None where the features lie there, or where such a layer is used again later. feature: the student's.
    """
    nodes = list(student.graph.nodes)
    front = until_cut(student, nodes, (block.entry for block in dropped))
    changed = (number for number, node in enumerate(front) if not _is_the_same(student, teacher, node))
    front = front[: next(changed, len(front))]
    later = nodes[len(front) :]
    if feature in {node.name for node in front} or _owned(student, front) & _owned(student, later):
        return ()
    return tuple(node.name for node in front if is_computed(node) and not set(front).issuperset(node.users))


def _is_the_same(student: fx.GraphModule, teacher: fx.GraphModule, node: fx.Node) -> bool:
    """Whether what a node reads of its own network, a module or a tensor, is the same in both."""
    if node.op == "call_module":
        one, other = (network.get_submodule(str(node.target)).state_dict() for network in (student, teacher))
        return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    if node.op != "get_attr":
        return True
    return torch.equal(*(execute(network, node, {}) for network in (student, teacher)))


def trained_parameters(student: fx.GraphModule, feature: str, shared: Sequence[str]) -> list[nn.Parameter]:
    """The parameters that the feature map depends on, of modules or read directly: all but the classifier's. shared: up to there none is."""
    nodes = nodes_to_compute([node_by_name(student, feature)], shared)
    by_id = {id(p): p for node in nodes for p in _parameters(student, node)}
    return list(by_id.values())


def _owned(network: fx.GraphModule, nodes: Sequence[fx.Node]) -> set[int]:
    """Which parameters these nodes use."""
    return {id(parameter) for node in nodes for parameter in _parameters(network, node)}


def _parameters(network: fx.GraphModule, node: fx.Node) -> list[nn.Parameter]:
    """The parameters that a node uses, of its module or read directly."""
    if node.op == "call_module":
        return [*network.get_submodule(str(node.target)).parameters()]
    if node.op != "get_attr":
        return []
    held = dict(network.named_parameters(remove_duplicate=False)).get(str(node.target))
    return [] if held is None else [held]


def relative_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the target's variance. Shapes: both alike -> []."""
    return _squared_error(output, target) / target.float().var().clamp_min(1e-12)


def _counted(value: Tensor, counts: Tensor | None) -> Tensor:
    """A value without padding, where it has positions that may be padding. Shapes: [n, positions, channels], counts [n, positions]."""
    return value if counts is None or value.ndim != 3 or value.shape[:2] != counts.shape else value[counts]


def _squared_error(output: Tensor, target: Tensor) -> Tensor:
    return mse_loss(output.float(), target.float())


def find_hints(
    student: fx.GraphModule,
    blocks: Sequence[Block],
    dropped: Sequence[Block],
    feature: str,
) -> tuple[tuple[str, str], ...]:
    """Hints: the student's block outputs between a splice and the features, each with the teacher's value that it should equal.

    At a splice, the value that stays replaces the last dropped exit. feature: the teacher's; it is left out, as are units
    inside other units.
    """
    cuts = splices(student, dropped)
    teacher_exit = {exit_: exit_ for exit_ in _outermost(student, blocks, cuts)} | cuts
    behind = set[str]().union(*(downstream(node_by_name(student, cut)) for cut in cuts)) & teacher_exit.keys()
    path = nodes_to_compute([node_by_name(student, feature_in(student, feature, dropped))], ())
    hints = [(node.name, teacher_exit[node.name]) for node in path if node.name in behind]
    return tuple(hint for hint in hints if hint[1] != feature)


def _outermost(student: fx.GraphModule, blocks: Sequence[Block], cuts: dict[str, str]) -> list[str]:
    """The exits of the student's units, without those inside another unit."""
    position = {node.name: index for index, node in enumerate(student.graph.nodes)}
    position |= {exit_: position[cut] for cut, exit_ in cuts.items()}
    spans = [(position[b.entry], position[b.exit], b.exit) for b in blocks if {b.entry, b.exit} <= position.keys()]
    return [exit_ for begin, end, exit_ in spans if not any(first <= begin and end < last for first, last, _ in spans)]
