"""One unit of the grid, from its tiny set to its answers on the test images."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import fx

from practise_deploy.compute import exact
from practise_deploy.errors import InputError
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import drop_blocks, feature_in
from practise_deploy.planning.choose import predicted_percent
from practise_deploy.settings import Settings
from practise_deploy.training.finetune import schedule_for
from practise_deploy.training.schedule import Schedule

from . import choice
from .bench import read_filters, table_of
from .filters import prune_filters
from .grid import FILTERS, MET_AT, SCHEMA, SCORED, SCORES, Unit
from .lessons import Pupil, rate_of, teach
from .ours import recovered_by_default
from .provenance import commit
from .shelf import Record, Shelf, packed
from .subjects import Subject, load_subject

BATCH = 64
_LOSS = {"labels": "labels", "kd": "kd", "filters-kd": "kd", "filters-labels": "labels"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where units are computed and kept."""

    shelf: Shelf
    data: Path
    device: torch.device
    dtype: torch.dtype

    @property
    def results(self) -> Path:
        """The folder of the units, the latency tables and the filters."""
        return self.shelf.folder


@dataclass(frozen=True, slots=True)
class Recovered:
    """A student, its name for the feature map, and how it came about."""

    student: fx.GraphModule
    feature: str
    facts: dict[str, Any]


def compute(unit: Unit, place: Place) -> Record:
    """A unit's record."""
    began = time.monotonic()
    subject = load_subject(unit.network, place.data)
    images = subject.tiny_set(unit.images, unit.seed)
    record: Record = {"schema": SCHEMA, "unit": unit.record()}
    with exact(unit.seed):
        if unit.method == SCORES:
            schedule = Schedule(steps=unit.steps, batch_size=BATCH, seed=unit.seed, dtype=place.dtype)
            record["scores"] = choice.adaptor_errors(subject, images, schedule)
        else:
            record |= _judged(unit, place, subject, images)
    record["seconds"] = round(time.monotonic() - began, 2)
    return record | _circumstances(unit, place)


def _judged(unit: Unit, place: Place, subject: Subject, images: FitImages) -> Record:
    scores = None if unit.scores is None else _scores(unit.scores, place)
    began = time.monotonic()
    if unit.method == "ours":
        done = _ours(unit, place, subject, images)
    elif unit.method in FILTERS:
        done = _filters(unit, place, subject, images)
    else:
        done = _blocks(unit, place, subject, images, scores)
    recovered_s = time.monotonic() - began
    teacher = subject.teacher_correct(place.device)
    judgement = subject.judge(done.student, done.feature, place.device)
    count = len(teacher)
    return {
        "budget_met_at": MET_AT,
        **done.facts,
        "teacher": {"correct": int(teacher.sum()), "images": count},
        "student": {"correct": int(judgement.correct.sum()), "images": count, "bits": packed(judgement.correct)},
        "feature_error": judgement.feature_error,
        "recovered_s": round(recovered_s, 2),
    }


def _scores(unit: Unit, place: Place) -> dict[str, float]:
    """The paper's R of every block: computed here unless it is kept, or another process is at it."""
    record = place.shelf.get(unit, lambda each: compute(each, place), wait=True)
    assert record is not None
    return {name: each["mse"] for name, each in record["scores"].items()}


def _ours(unit: Unit, place: Place, subject: Subject, images: FitImages) -> Recovered:
    table = table_of(place.results, unit.network)
    student, dropped, how = recovered_by_default(unit, subject, images, table, (place.device, place.dtype))
    own = feature_in(student, subject.feature, subject.named(dropped))
    taught = {"learning_rate": None, "last_loss": None, "recovered_by": how}
    return Recovered(student, own, _of_blocks(dropped, place, unit) | taught)


def _blocks(
    unit: Unit, place: Place, subject: Subject, images: FitImages, scores: dict[str, float] | None
) -> Recovered:
    """A baseline that drops blocks: choose, drop plainly, and teach."""
    table = table_of(place.results, unit.network)
    if scores is not None:
        order = choice.by_score(scores, table)
    elif unit.method == "random":
        order = choice.at_random(table, unit.images, unit.seed)
    else:
        order = choice.by_error(choice.plain_errors(subject, images), table)
    dropped = choice.first_that_meet(order, table, unit.reduction)
    student = drop_blocks(subject.teacher, subject.named(dropped))
    own = feature_in(student, subject.feature, subject.named(dropped))
    taught = _taught(unit, place, subject, images, (student, own))
    return Recovered(student, own, _of_blocks(dropped, place, unit) | taught)


def _filters(unit: Unit, place: Place, subject: Subject, images: FitImages) -> Recovered:
    """A baseline that prunes filters to the same measured latency."""
    found = read_filters(place.results, unit.network, unit.reduction)
    inner, widths = list(found["widths"]), list(found["widths"].values())
    student = prune_filters(subject.teacher, inner, widths, subject.network.input_shape)
    taught = _taught(unit, place, subject, images, (student, subject.feature))
    facts = {"dropped": None, "widths": found["widths"], "predicted_percent": None}
    return Recovered(student, subject.feature, facts | {"measured_percent": found["reduction_percent"]} | taught)


def _taught(
    unit: Unit, place: Place, subject: Subject, images: FitImages, start: tuple[fx.GraphModule, str]
) -> dict[str, Any]:
    """Teach the student; gives the rate and the last losses."""
    loss = _LOSS.get(unit.method, "mimic")
    rate = rate_of(loss, unit.images, place.results)
    asked = Settings(recipe="paper", iterations=unit.steps, seed=unit.seed, batch_size=BATCH, learning_rate=rate)
    schedule = schedule_for(asked, subject.network.input_shape[-1], place.dtype)
    pupil = Pupil(start[0], start[1], subject.teacher, subject.feature, place.device)
    last, rate = teach(pupil, loss, images, schedule)
    return {"learning_rate": rate, "last_loss": last}


def _of_blocks(dropped: tuple[str, ...], place: Place, unit: Unit) -> dict[str, Any]:
    predicted = predicted_percent(dropped, table_of(place.results, unit.network))
    if not choice.meets(predicted, unit.reduction):
        raise InputError(
            f"{unit.name}: {', '.join(dropped)} do not meet the budget at its '{MET_AT}' end as all methods must",
            remedy="choose them again, with the table that they were predicted by",
        )
    return {
        "dropped": list(dropped),
        "widths": None,
        "predicted_percent": asdict(predicted),
        "measured_percent": None,
    }


def _circumstances(unit: Unit, place: Place) -> Record:
    """What a record owes to the place and the time of its making."""
    learnt_on = "cpu" if unit.method == SCORES else place.device.type
    packages = ("torch", "torchvision", "practise-deploy", *(("torch-pruning",) if unit.method in FILTERS else ()))
    return {
        "batch": BATCH,
        "precision": precision_of(place.dtype),
        "device": learnt_on,
        "threads": torch.get_num_threads(),
        "scored_by_sgd": unit.method in SCORED,
        "commit": commit(),
        "versions": {package: version(package) for package in packages},
    }


def precision_of(dtype: torch.dtype) -> str:
    """What the results call it."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"
