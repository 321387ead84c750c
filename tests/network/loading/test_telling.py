"""What outputs say, told from their shapes and the last operations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from practise_deploy.errors import InputError
from practise_deploy.network.loading.telling import told_task
from practise_deploy.network.tracing.trace import trace
from practise_deploy.terms import Scores, Task, TaskKind

SHAPE = (1, 3, 32, 32)


class Ends(nn.Module):
    """A network that ends as it is told to, from maps [n, 6, 16, 16]."""

    def __init__(self, end) -> None:
        super().__init__()
        self.stem, self.end = nn.Conv2d(3, 6, 3, 2, 1), end

    def forward(self, x: Tensor):
        return self.end(self.stem(x))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def told(end, asked: str | None = None, metadata: dict[str, str] | None = None) -> Task:
    traced, _ = trace(Ends(end).eval(), SHAPE)
    return told_task(traced, asked, metadata or {}, SHAPE)


@pytest.mark.parametrize(
    ("end", "kind", "scores"),
    [
        (pooled, TaskKind.CLASSIFICATION, Scores.LOGITS),
        (lambda x: pooled(x).softmax(1), TaskKind.CLASSIFICATION, Scores.PROBABILITIES),
        (lambda x: F.softmax(x.mean((2, 3), keepdim=True), 1).flatten(1), TaskKind.CLASSIFICATION, Scores.PROBABILITIES),
        (lambda x: x.mean((2, 3), keepdim=True), TaskKind.CLASSIFICATION, Scores.LOGITS),
        (lambda x: pooled(x).sigmoid(), TaskKind.MULTI_LABEL, Scores.PROBABILITIES),
        (lambda x: torch.sigmoid(pooled(x)[:, :1]), TaskKind.BINARY, Scores.PROBABILITIES),
        (lambda x: torch.sigmoid(pooled(x)[:, 0]), TaskKind.BINARY, Scores.PROBABILITIES),
        (lambda x: pooled(x)[:, :1], TaskKind.REGRESSION, Scores.LOGITS),
        (lambda x: F.normalize(pooled(x), dim=1), TaskKind.EMBEDDING, Scores.LOGITS),
        (lambda x: pooled(x) / pooled(x).norm(dim=1, keepdim=True), TaskKind.EMBEDDING, Scores.LOGITS),
        (lambda x: torch.tanh(pooled(x)), TaskKind.EMBEDDING, Scores.LOGITS),
        (lambda x: F.layer_norm(pooled(x), (6,)), TaskKind.EMBEDDING, Scores.LOGITS),
        (lambda x: {"image_embeds": pooled(x)}, TaskKind.EMBEDDING, Scores.LOGITS),
        (lambda x: x, TaskKind.SEGMENTATION, Scores.LOGITS),
        (lambda x: x[:, :1].sigmoid(), TaskKind.SEGMENTATION, Scores.PROBABILITIES),
        (lambda x: x[:, :1], TaskKind.REGRESSION, Scores.LOGITS),
        (lambda x: F.avg_pool2d(x, 8), TaskKind.REGRESSION, Scores.LOGITS),  # a map of features
        (lambda x: x.flatten(2).transpose(1, 2).softmax(2), TaskKind.SEQUENCE, Scores.PROBABILITIES),
        (lambda x: x.flatten(2).transpose(1, 2), TaskKind.REGRESSION, Scores.LOGITS),
    ],
)  # fmt: skip
def test_task_is_told_from_shapes_and_the_last_operation(end, kind: TaskKind, scores: Scores):
    task = told(end)
    assert (task.kind, task.scores) == (kind, scores) and task.reason


def test_metadata_and_names_of_outputs_tell_what_shapes_do_not():
    places = {"task": "detect"}
    assert told(lambda x: x.flatten(2), metadata=places).kind is TaskKind.DETECTION
    assert told(lambda x: x.flatten(2).transpose(1, 2).softmax(2), metadata={"character": "abc"}).kind is TaskKind.CTC
    boxes = told(lambda x: {"boxes": x.flatten(2)[:, :4].transpose(1, 2), "scores": x.flatten(2)[:, 4]})
    assert boxes.kind is TaskKind.DETECTION


def test_output_that_says_more_than_values_is_judged():
    task = told(lambda x: {"pose": pooled(x)[:, :1], "classes": pooled(x)})
    assert (task.kind, task.output, task.names) == (TaskKind.CLASSIFICATION, 1, ("pose", "classes"))
    assert task.shapes == ((1,), (6,))


def test_asked_task_is_of_the_first_output_that_suits_it():
    def both(x: Tensor):
        return pooled(x), torch.sigmoid(x)

    assert told(both, "segmentation").output == 1 and told(both, "segmentation").scores is Scores.PROBABILITIES
    assert told(lambda x: F.normalize(pooled(x), dim=1), "classification").scores is Scores.LOGITS
    assert told(both, "embedding").output == 0 and told(lambda x: pooled(x)[:, :1], "binary").kind is TaskKind.BINARY


@pytest.mark.parametrize(
    ("end", "asked"),
    [(pooled, "segmentation"), (pooled, "binary"), (pooled, "ctc"), (lambda x: pooled(x)[:, :1], "classification"), (lambda x: x, "classification")],
)  # fmt: skip
def test_task_that_suits_no_output_is_refused(end, asked: str):
    with pytest.raises(InputError, match=f"--task {asked} does not suit outputs of shape") as error:
        told(end, asked)
    assert "FILE.py:FUNCTION" in error.value.remedy


def test_metric_is_looked_up_at_once(tmp_path: Path):
    (tmp_path / "own.py").write_text("def metric(a, b): return 1\n")
    task = told(pooled, f"{tmp_path / 'own.py'}:metric")
    assert task.kind is TaskKind.CUSTOM and len(task.metric_sha256) == 64
    with pytest.raises(InputError, match="has no function 'other'"):
        told(pooled, f"{tmp_path / 'own.py'}:other")
