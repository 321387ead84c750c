"""A student beside its teacher, and how far it is from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx
from torch.nn.functional import kl_div, log_softmax, mse_loss

from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.activations import batches, downstream, forward, logits_of, named, order_of
from practise_deploy.network.surgery import feature_in, junctions
from practise_deploy.terms import Block
from practise_deploy.training.schedule import Schedule

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Pair:
    """A student, its teacher, the values of theirs that should agree, and where they are computed.

    exits: further values on the way to the features, as `exits_in` gives them.
    """

    student: fx.GraphModule
    teacher: fx.GraphModule
    student_feature: str
    teacher_feature: str
    device: torch.device = _CPU
    exits: tuple[tuple[str, str], ...] = ()
    known: dict[tuple[int, int], tuple[FitImages, list[Tensor]]] = field(default_factory=dict, repr=False)

    def error(self, images: FitImages, size: int) -> float:
        """Mean squared error of the student's features, without augmentation, in eval mode and full precision."""
        self.student.eval()
        student_value, total = named(self.student, self.student_feature), 0.0
        with torch.no_grad():
            for part, wanted in zip(batches(len(images), size), self._wanted(images, size), strict=True):
                (found,) = forward(self.student, images.batch(part).to(self.device), [student_value])
                total += float((wanted - found).float().square().mean()) * len(found)
        return total / len(images)

    def _wanted(self, images: FitImages, size: int) -> list[Tensor]:
        """The teacher's features of these images by batch, computed once."""
        if (id(images), size) not in self.known:
            value = named(self.teacher, self.teacher_feature)
            parts = batches(len(images), size)
            found = [forward(self.teacher, images.batch(part).to(self.device), [value])[0] for part in parts]
            self.known[id(images), size] = (images, found)  # holding the images keeps its id theirs
        return self.known[id(images), size][1]

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's and the student's feature maps."""
        with torch.no_grad():
            (wanted,) = forward(self.teacher, x, [named(self.teacher, self.teacher_feature)])
        (found,) = forward(self.student, x, [named(self.student, self.student_feature)])
        return wanted, found

    def loss(self, x: Tensor, schedule: Schedule) -> Tensor:
        """What a step descends on: the squared error of the features, and what the schedule adds to it."""
        alike = [(self.student_feature, self.teacher_feature), *(self.exits if schedule.exits else ())]
        if schedule.logits:
            alike.append((logits_of(self.student).name, logits_of(self.teacher).name))
        with torch.no_grad():
            wanted = forward(self.teacher, x, [named(self.teacher, name) for _, name in alike])
        found = forward(self.student, x, [named(self.student, name) for name, _ in alike])
        loss = relative_error(found[0], wanted[0]) if schedule.scaled else mse_loss(found[0].float(), wanted[0].float())
        if schedule.logits:
            loss = loss + schedule.logits * divergence(wanted[-1], found[-1])
        if schedule.exits and self.exits:
            way = slice(1, 1 + len(self.exits))
            errors = [relative_error(*each) for each in zip(found[way], wanted[way], strict=True)]
            loss = loss + schedule.exits * torch.stack(errors).mean()
        return loss


def pair_of(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    feature: str,
    dropped: Sequence[Block],
    *,
    exits: tuple[tuple[str, str], ...] = (),
    device: torch.device = _CPU,
) -> Pair:
    """A student without these blocks beside its teacher. feature: the teacher's. exits: as `exits_in` gives them."""
    return Pair(student, teacher, feature_in(student, feature, dropped), feature, device, exits)


def relative_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error over the variance of what is wanted."""
    return mse_loss(found.float(), wanted.float()) / wanted.float().var().clamp_min(1e-12)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL divergence of the student's classes from the teacher's, in nats a sample. Shapes: logits [n, classes]."""
    wanted, found = (log_softmax(each.float().flatten(1), 1) for each in (teacher, student))
    return kl_div(found, wanted, log_target=True, reduction="batchmean")


def exits_in(
    student: fx.GraphModule,
    blocks: Sequence[Block],
    dropped: Sequence[Block],
    feature: str,
    otherwise: Collection[str] = (),
) -> tuple[tuple[str, str], ...]:
    """The student's values between a cut and the features that end a block, and the teacher's that they should equal.

    At a cut, what stays stands for the end of what was dropped. feature: the teacher's; it is left out, and so are a unit
    inside another one and the student's values that are `otherwise`, in another basis than the teacher's.
    """
    cuts = junctions(student, dropped)
    stands_for = {exit_: exit_ for exit_ in _outermost(student, blocks, cuts)} | cuts
    behind = set[str]().union(*(downstream(named(student, cut)) for cut in cuts)) & stands_for.keys()
    way = order_of([named(student, feature_in(student, feature, dropped))], ())
    pairs = [(node.name, stands_for[node.name]) for node in way if node.name in behind]
    return tuple(pair for pair in pairs if pair[1] != feature and pair[0] not in otherwise)


def _outermost(student: fx.GraphModule, blocks: Sequence[Block], cuts: dict[str, str]) -> list[str]:
    """The exits of the student's units, but of those within another unit."""
    place = {node.name: number for number, node in enumerate(student.graph.nodes)}
    place |= {exit_: place[cut] for cut, exit_ in cuts.items()}
    spans = [(place[b.entry], place[b.exit], b.exit) for b in blocks if {b.entry, b.exit} <= place.keys()]
    return [exit_ for begin, end, exit_ in spans if not any(first <= begin and end < last for first, last, _ in spans)]
