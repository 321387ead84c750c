"""Who judges a refit did not take part in it, and what is given in the end is fitted on all images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from networks import tiny_resnet
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.graph.surgery import drop_blocks, weights_of
from practise_deploy.refit import recover as sequence
from practise_deploy.refit.recover import refitted_without
from practise_deploy.refit.solvers import Solver, SolverKind
from samples.lessons import RESNET, Silent, held_out_error, images, opened, recover


def test_few_images_are_judged_in_turns_and_all_of_them_are_fitted():
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    dropped = [blocks["layer2.1"]]
    student = recover(teacher, feature, dropped, images(30, RESNET, few=200), 0, Silent())
    assert student.judged_on == "30 images, 5-fold cross-validation"
    assert student.mse < student.mse_before
    plain, recovered = held_out_error(teacher, feature, dropped, student, images(64, RESNET, seed=77))
    assert recovered < plain


def test_quick_refit_learns_nothing_from_the_images_that_judge_it():
    """Spoiling them leaves its weights alone; spoiling one that is fitted does not."""
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    data = images(20, RESNET)
    fitted, judge = data.split(0)

    def weights(spoiled) -> dict:
        changed = images(20, RESNET)
        which = [n for n in range(20) if any(torch.equal(data.pixels[n], each) for each in spoiled)]
        changed.pixels[which] *= 1.5
        calibration = CalibrationProblem(teacher=teacher, feature=feature, images=changed)
        return refitted_without(calibration, [blocks["layer1.1"]], Silent())

    assert len(judge) == 4
    first, second, third = weights([]), weights(judge.pixels), weights(fitted.pixels[:1])
    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != third[name]).any() for name in first)


def test_quick_refit_that_is_worse_on_the_judges_is_not_taken(monkeypatch):
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    dropped = [blocks["layer1.1"]]
    away = Solver(SolverKind.RIDGE, lambda sums, start: start + 100)
    monkeypatch.setattr(sequence, "SOLVERS", {sequence.ONE_RIDGE: away})
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=images(20, RESNET))
    plain = weights_of(drop_blocks(teacher, dropped))
    given = refitted_without(calibration, dropped, Silent())
    assert all((given[name] == plain[name]).all() for name in plain)


@pytest.mark.parametrize(("few", "judges"), [(8, 4), (200, 20)])
def test_student_that_is_given_is_fitted_on_the_judges_too(few, judges):
    """The same solvers, fitted on some of the images less, give other weights."""
    teacher, feature, blocks = opened(tiny_resnet(), RESNET)
    data, dropped = images(20, RESNET, few=few), [blocks["layer1.1"]]
    given = recover(teacher, feature, dropped, data, 0, Silent())
    calibration = CalibrationProblem(teacher=teacher, feature=feature, images=data)
    fewer = replace(calibration, images=data.split(0)[0])
    with torch.no_grad():
        on_all = sequence._fitted(calibration, dropped, given.choices).student.state_dict()
        on_fewer = sequence._fitted(fewer, dropped, given.choices).student.state_dict()
    assert given.judged_on.split()[0] == str(judges)
    assert all((given.weights[name] == on_all[name].numpy()).all() for name in given.weights)
    assert any((given.weights[name] != on_fewer[name].numpy()).any() for name in given.weights)
    plain, recovered = held_out_error(teacher, feature, dropped, given, images(64, RESNET, seed=77))
    assert recovered < plain
