"""Learning rates of label finetuning and distillation: a short trial on a seed that the grid does not use."""

from __future__ import annotations

import json

from practise_deploy.finetune import schedule_for
from practise_deploy.model.compute import exact
from practise_deploy.model.pair import feature_in
from practise_deploy.model.surgery import drop_blocks
from practise_deploy.settings import Settings
from practise_deploy.store import write_atomically

from . import choice
from .bench import table_of
from .grid import MET_AT
from .lessons import Pupil, teach
from .provenance import commit
from .subjects import load_subject
from .work import BATCH, Place

SEED = 100
NETWORK, REDUCTION, IMAGES, STEPS = "resnet20", 22, 50, 500
TRIED = (0.0002, 0.001, 0.005, 0.02)


def write_pilot(place: Place) -> None:
    """Try the rates with both losses on the blocks of least plain-drop error, and keep what each gave.

    Judged on the test images, of another seed's tiny set: what that choice can do is flatter these two baselines.
    """
    subject, table = load_subject(NETWORK, place.data), table_of(place.results, NETWORK)
    images = subject.tiny_set(IMAGES, SEED)
    dropped = choice.first_that_meet(choice.by_error(choice.plain_errors(subject, images), table), table, REDUCTION)
    percent: dict[str, dict[str, float]] = {"labels": {}, "kd": {}}
    for loss, tried in percent.items():
        for rate in TRIED:
            student = drop_blocks(subject.teacher, subject.named(dropped))
            own = feature_in(student, subject.feature, subject.named(dropped))
            pupil = Pupil(student, own, subject.teacher, subject.feature, place.device)
            asked = Settings(recipe="paper", iterations=STEPS, seed=SEED, batch_size=BATCH, learning_rate=rate)
            with exact(SEED):
                teach(pupil, loss, images, schedule_for(asked, subject.network.input_shape[-1], place.dtype))
            tried[str(rate)] = 100 * float(subject.judge(student, own, place.device).correct.mean())
            print(loss, rate, f"{tried[str(rate)]:.2f}%", flush=True)
    found = {
        "schema": 1, "commit": commit(), "network": NETWORK, "asked_percent": REDUCTION, "budget_met_at": MET_AT, "images": IMAGES, "seed": SEED, "steps": STEPS,
        "dropped": list(dropped), "accuracy_percent": percent,
        "best": {loss: float(max(tried, key=tried.__getitem__)) for loss, tried in percent.items()},
    }  # fmt: skip
    write_atomically(place.results / "pilot.json", json.dumps(found, indent=1) + "\n")
