"""Learning rates of label finetuning and distillation: a trial on a seed that the grid does not use.

One network is tried, with few and with many images; its rates serve the others, and filters as they serve blocks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from practise_deploy.compute import exact
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.surgery import drop_blocks, feature_in
from practise_deploy.run import write_atomically
from practise_deploy.settings import Settings
from practise_deploy.training.finetune import schedule_for

from . import choice
from .bench import table_of
from .grid import MET_AT
from .lessons import Pupil, pilot_path, teach
from .provenance import commit
from .subjects import Subject, load_subject
from .work import BATCH, Place, precision_of

SEED = 100
NETWORK, REDUCTION, IMAGES, STEPS = "resnet20", 22, (50, 500), 400
LOSSES = ("labels", "kd")
TRIED = (0.00005, 0.0002, 0.001, 0.005, 0.02)
_BEYOND = 4


def write_pilot(place: Place) -> None:
    """Try the rates with both losses on the blocks of least plain-drop error, and keep what each gave.

    Judged on the test images, which the grid judges on too; the tiny sets are another seed's.
    """
    subject, table = load_subject(NETWORK, place.data), table_of(place.results, NETWORK)
    trials = {}
    for count in IMAGES:
        images = subject.tiny_set(count, SEED)
        dropped = choice.first_that_meet(choice.by_error(choice.plain_errors(subject, images), table), table, REDUCTION)
        trials[str(count)] = {"dropped": list(dropped), **_trial(subject, images, dropped, place)}
    found = {
        "schema": 2, "commit": commit(), "network": NETWORK, "asked_percent": REDUCTION, "budget_met_at": MET_AT, "seed": SEED, "steps": STEPS,
        "precision": precision_of(place.dtype), "images": trials,
    }  # fmt: skip
    write_atomically(pilot_path(place.results), json.dumps(found, indent=1) + "\n")


def _trial(subject: Subject, images: FitImages, dropped: tuple[str, ...], place: Place) -> dict[str, Any]:
    """What each rate gave with one tiny set, and the best of them, loss by loss."""

    def judged(loss: str, rate: float) -> float:
        percent = _accuracy(subject, images, dropped, place, loss, rate)
        print(f"{len(images)} images, {loss}, rate {rate:g}: {percent:.2f}%", flush=True)
        return percent

    percent = {loss: climbed(TRIED, partial(judged, loss)) for loss in LOSSES}
    return {
        "accuracy_percent": {loss: {f"{rate:g}": value for rate, value in of.items()} for loss, of in percent.items()},
        "best": {loss: max(of, key=of.__getitem__) for loss, of in percent.items()},
    }


def climbed(rates: Sequence[float], judged: Callable[[float], float]) -> dict[float, float]:
    """What every rate gives, lowest first; where an edge is best, four times further, until that is no better."""
    found = {rate: judged(rate) for rate in rates}
    while (best := max(found, key=found.__getitem__)) in (min(found), max(found)):
        further = best / _BEYOND if best == min(found) else best * _BEYOND
        found[further] = judged(further)
    return dict(sorted(found.items()))


def _accuracy(
    subject: Subject, images: FitImages, dropped: tuple[str, ...], place: Place, loss: str, rate: float
) -> float:
    """Percent of the test images that the network without these blocks tells right after so much finetuning."""
    student = drop_blocks(subject.teacher, subject.named(dropped))
    own = feature_in(student, subject.feature, subject.named(dropped))
    pupil = Pupil(student, own, subject.teacher, subject.feature, place.device)
    asked = Settings(recipe="paper", iterations=STEPS, seed=SEED, batch_size=BATCH, learning_rate=rate)
    with exact(SEED):
        teach(pupil, loss, images, schedule_for(asked, subject.network.input_shape[-1], place.dtype))
    return 100 * float(subject.judge(student, own, place.device).correct.mean())
