"""A student beside its teacher, and how far it is from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from practise_deploy.model.images import FitImages
from practise_deploy.model.values import batches, forward, logits_of, named

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Pair:
    """A student, its teacher, the values of theirs that should agree, and where they are computed."""

    student: fx.GraphModule
    teacher: fx.GraphModule
    student_feature: str
    teacher_feature: str
    device: torch.device = _CPU
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

    def loss(self, x: Tensor, logits: float, *, scaled: bool) -> Tensor:
        """Mean squared error of the features, over their variance where `scaled`, plus `logits` times KL in nats."""
        both = logits > 0
        teacher = [named(self.teacher, self.teacher_feature), *([logits_of(self.teacher)] if both else [])]
        student = [named(self.student, self.student_feature), *([logits_of(self.student)] if both else [])]
        with torch.no_grad():
            wanted = forward(self.teacher, x, teacher)
        found = forward(self.student, x, student)
        loss = nn.functional.mse_loss(found[0].float(), wanted[0].float())
        if scaled:
            loss = loss / wanted[0].float().var().clamp_min(1e-12)
        return loss + logits * divergence(wanted[1], found[1]) if both else loss


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL divergence of the student's classes from the teacher's, in nats a sample. Shapes: logits [n, classes]."""
    wanted, found = (nn.functional.log_softmax(each.float().flatten(1), 1) for each in (teacher, student))
    return nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")


def feature_in(student: fx.GraphModule, feature: str, cuts: dict[str, str]) -> str:
    """The student's name for the teacher's feature map: a dropped last block's entry stands for its exit."""
    if any(node.name == feature for node in student.graph.nodes):
        return feature
    return next(entry for entry, exit_ in cuts.items() if exit_ == feature)
