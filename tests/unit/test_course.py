"""A descent that was interrupted goes on to the same bits."""

import pytest

from practise_deploy.model import mimic as mimicking
from practise_deploy.model.schedule import Schedule
from practise_deploy.store import read_arrays
from unit.descents import SHORT, descend, same


class Interrupted(Exception):
    """What a closed laptop looks like to a descent."""


class Interrupting:
    """Ends the descent at a step."""

    def __init__(self, at: int) -> None:
        self.at = at

    def advance(self, done: float, total: float, note: str = "") -> None:
        if done == self.at:
            raise Interrupted


@pytest.mark.parametrize("at", [2, 5])
@pytest.mark.parametrize(
    "schedule",
    [
        SHORT,
        Schedule(steps=6, batch_size=8, norms="trained", keep_best=True),
        Schedule(steps=6, batch_size=8, optimiser="adamw", learning_rate=1e-3, mix=0.5, scaled=True, average=0.9),
        Schedule(steps=6, batch_size=8, exits=3.0, scaled=True, learning_rate=1e-3),
        Schedule(steps=6, batch_size=8, norms="re-estimated", logits=0.1, pull=0.1, learning_rate=1e-4),
    ],
)
def test_interrupted_and_resumed_descent_ends_with_the_same_bits(schedule, at, tmp_path, monkeypatch):
    monkeypatch.setattr(mimicking, "_SAVE_EVERY_S", -1.0)
    _, whole, wanted = descend(schedule)
    partial = tmp_path / "partial.npz"
    with pytest.raises(Interrupted):
        descend(schedule, partial=partial, progress=Interrupting(at))
    assert int(read_arrays(partial)["steps"][0]) == at - 1
    _, resumed, found = descend(schedule, partial=partial)
    assert same(wanted, found)
    assert (resumed.history, resumed.step, resumed.best_step) == (whole.history, whole.step, whole.best_step)


def test_resumed_descent_does_not_start_over(tmp_path, monkeypatch):
    monkeypatch.setattr(mimicking, "_SAVE_EVERY_S", -1.0)
    partial, seen = tmp_path / "partial.npz", []

    class Noting:
        def advance(self, done: float, total: float, note: str = "") -> None:
            seen.append(done)

    with pytest.raises(Interrupted):
        descend(SHORT, partial=partial, progress=Interrupting(4))
    descend(SHORT, partial=partial, progress=Noting())
    assert seen == [4, 5, 6]


def test_nothing_is_saved_before_it_is_time(tmp_path):
    descend(SHORT, partial=tmp_path / "partial.npz")
    assert not (tmp_path / "partial.npz").exists()
