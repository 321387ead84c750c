"""A descent that was interrupted goes on to the same bits."""

import pytest
import torch
from torch import nn

from practise_deploy.run import read_arrays
from practise_deploy.training import mimic as mimicking
from practise_deploy.training.schedule import Schedule
from samples import descents
from samples.descents import SHORT, descend, same


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
        Schedule(steps=6, batch_size=8, norms="trained"),
        Schedule(steps=6, batch_size=8, optimiser="adamw", learning_rate=1e-3, mix=0.5, scaled=True, ema_decay=0.9),
        Schedule(steps=6, batch_size=8, hints=3.0, scaled=True, learning_rate=1e-3),
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
    assert (resumed.history, resumed.step) == (whole.history, whole.step)


@pytest.mark.gpu
def test_descent_on_a_gpu_agrees_with_the_cpus_and_goes_on_there(tmp_path, monkeypatch, gpu):
    """Sums of a GPU need not end with the same bits; draws of one seed do."""
    monkeypatch.setattr(mimicking, "_SAVE_EVERY_S", -1.0)
    schedule = Schedule(steps=6, batch_size=8, optimiser="adamw", learning_rate=1e-4, ema_decay=0.9, scaled=True)
    _, here, _ = descend(schedule)
    _, whole, wanted = descend(schedule, device=gpu)
    with pytest.raises(Interrupted):
        descend(schedule, partial=tmp_path / "partial.npz", progress=Interrupting(4), device=gpu)
    _, resumed, found = descend(schedule, partial=tmp_path / "partial.npz", device=gpu)
    assert [error for _, error in whole.history] == pytest.approx([error for _, error in here.history], rel=1e-2)
    assert [error for _, error in resumed.history] == pytest.approx([error for _, error in whole.history], rel=1e-4)
    assert all(found[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-5) for name in wanted)


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


def test_damaged_file_of_an_interrupted_descent_is_said_and_the_descent_begun_anew(tmp_path):
    (tmp_path / "partial.npz").write_bytes(b"PK\x03\x04 and nothing more")
    _, course, found = descend(SHORT, partial=tmp_path / "partial.npz")
    _, whole, wanted = descend(SHORT)
    assert same(wanted, found) and course.history == whole.history
    assert course.notes == ("the checkpoint of the interrupted finetuning was damaged: training restarted",)
    assert whole.notes == ()


def test_resumed_descent_draws_the_same_dropout(tmp_path, monkeypatch):
    monkeypatch.setattr(mimicking, "_SAVE_EVERY_S", -1.0)
    schedule, pair = Schedule(steps=4, batch_size=8, norms="trained"), descents.small_pair

    def dropping(device: str):
        found = pair(device)
        replaced = next(name for name, each in found.student.named_modules() if isinstance(each, nn.ReLU))
        found.student.set_submodule(replaced, nn.Dropout(0.5))
        return found

    monkeypatch.setattr(descents, "small_pair", dropping)
    _, _, wanted = descend(schedule)
    with pytest.raises(Interrupted):
        descend(schedule, partial=tmp_path / "p.npz", progress=Interrupting(3))
    torch.rand(7)  # another process has another past
    _, _, found = descend(schedule, partial=tmp_path / "p.npz")
    assert same(wanted, found)
