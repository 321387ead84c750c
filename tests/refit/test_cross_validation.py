"""Who judges a refit did not take part in it, and what is given in the end is fitted on all images."""

from __future__ import annotations

import pytest
import torch

from networks import tiny_resnet
from practise_deploy.refit import recover as sequence
from practise_deploy.refit.solvers import SOLVERS
from samples.lessons import RESNET, Silent, held_out_error, images, opened, recover


def test_few_images_are_judged_in_turns_and_all_of_them_are_fitted():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    dropped = [blocks["layer2.1"]]
    student = recover(teacher, feature, dropped, images(30, RESNET, few=200), 0, Silent())
    assert student.judged_on == "30 images, 5-fold cross-validation"
    assert student.mse < student.mse_before
    plain, recovered = held_out_error(teacher, feature, dropped, student, images(64, RESNET, seed=77))
    assert recovered < plain


def test_error_told_is_of_images_that_were_not_fitted(monkeypatch):
    """Spoiling the judge's images changes the error and not the weights."""
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    only = {"refit, ridge 0.3": SOLVERS["refit, ridge 0.3"]}
    monkeypatch.setattr(sequence, "SOLVERS", only)
    monkeypatch.setattr(sequence, "STRATEGIES", (sequence.BEST_EACH,))
    monkeypatch.setattr(sequence, "winner_of", lambda tried: list(tried)[-1])
    data = images(20, RESNET)
    _, judge = data.split(0)
    spoiled = images(20, RESNET)
    which = [n for n in range(20) if any(torch.equal(data.pixels[n], kept) for kept in judge.pixels)]
    assert len(which) == 4
    spoiled.pixels[which] *= 1.5
    first, second = (
        recover(teacher, feature, [blocks["layer1.1"]], each, 0, Silent(), quick=True) for each in (data, spoiled)
    )
    assert first.mse_before != second.mse_before and first.mse != second.mse
    assert all((first.weights[name] == second.weights[name]).all() for name in first.weights)


@pytest.mark.parametrize(("few", "judges"), [(8, 4), (200, 20)])
def test_student_that_is_given_is_fitted_on_the_judges_too(few, judges):
    """Spoiling them leaves the error of a quick calibration's weights alone, and changes those that are given else."""
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    data = images(20, RESNET, few=few)
    given, judged = (
        recover(teacher, feature, [blocks["layer1.1"]], data, 0, Silent(), quick=quick) for quick in (False, True)
    )
    assert given.judged_on.split()[0] == str(judges)
    assert any((given.weights[name] != judged.weights[name]).any() for name in given.weights)
    if few == 8:
        assert (given.mse, given.choices, given.method) == (judged.mse, judged.choices, judged.method)
    plain, recovered = held_out_error(teacher, feature, [blocks["layer1.1"]], given, images(64, RESNET, seed=77))
    assert recovered < plain
