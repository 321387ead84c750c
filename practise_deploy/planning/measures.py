"""The words for what a task measures: agreement with the original, and what is lost of it."""

from __future__ import annotations

from practise_deploy.terms import TaskKind

_AGREEMENT = {
    TaskKind.MULTI_LABEL: "the original's answer for {} of labels",
    TaskKind.REGRESSION: "{} of the variance of the original's values explained",
    TaskKind.EMBEDDING: "mean cosine with the original's embeddings {}",
    TaskKind.SEGMENTATION: "the original's class on {} of pixels",
    TaskKind.SEQUENCE: "the original's class on {} of positions",
    TaskKind.CTC: "{} of the original's characters",
    TaskKind.DETECTION: "{} of boxes matched with the original's",
    TaskKind.CUSTOM: "{} by the metric",
}
_RIGHT = {
    TaskKind.MULTI_LABEL: "Labels right",
    TaskKind.REGRESSION: "Variance of the labels explained",
    TaskKind.SEGMENTATION: "Pixels right",
    TaskKind.SEQUENCE: "Positions right",
}
_TITLE = {
    TaskKind.MULTI_LABEL: "Same labels",
    TaskKind.REGRESSION: "Variance explained",
    TaskKind.EMBEDDING: "Mean cosine",
    TaskKind.SEGMENTATION: "Same pixels",
    TaskKind.SEQUENCE: "Same positions",
    TaskKind.CTC: "Same characters",
    TaskKind.DETECTION: "Boxes matched",
    TaskKind.CUSTOM: "By the metric",
}


def agreement_text(kind: TaskKind, share: str) -> str:
    """An agreement in words. share: in percent, with its unit."""
    return _AGREEMENT.get(kind, "the original's answer on {}").format(share)


def agreement_title(kind: TaskKind) -> str:
    """The head of a column of agreements."""
    return _TITLE.get(kind, "Same top-1 class")


def accuracy_title(kind: TaskKind) -> str:
    """The head of a column of accuracies, by labels."""
    return _RIGHT.get(kind, "Top-1 accuracy")


def accuracy_name(kind: TaskKind) -> str:
    """What an accuracy is called before its figure."""
    return _RIGHT.get(kind, "top-1").lower()


def loss_title(*, of_accuracy: bool) -> str:
    """The head of a column of losses."""
    return "Accuracy lost" if of_accuracy else "Agreement lost"


def points_of(*, of_accuracy: bool) -> str:
    """What a loss is counted in."""
    return "points" if of_accuracy else "points of agreement"


def nothing_to_lose(kind: TaskKind) -> str:
    """Why a loss means nothing."""
    if kind is TaskKind.DETECTION:
        return "the original itself finds no box"
    return "the original itself is indistinguishable from chance by the labels"
