"""Blocks that one refitted site misjudges are scored by what their whole recovery leaves."""

from __future__ import annotations

import numpy as np
import pytest

from networks import tiny_mobilenet
from planning.test_interactions import judged, table
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.units.blocks import droppable
from practise_deploy.planning.interactions import candidates_of
from practise_deploy.refit import whole_recovery
from practise_deploy.refit.recover import verified_without
from practise_deploy.refit.recoverability import measure_recoverability
from practise_deploy.refit.whole_recovery import is_doubtful, rescored, with_errors
from samples.lessons import MOBILENET, Silent, images, opened

FORM = np.array([[1.0, 0.2, 0.0], [0.2, 0.8, -0.1], [0.0, -0.1, 0.1]])


def test_error_of_the_whole_recovery_takes_the_place_of_a_larger_one():
    found = with_errors(judged([1.0, 0.8, 0.1], features=FORM), {"a": np.array([0.2, 0.3])})
    (a, b, c) = found.of
    assert (a.relative, a.mse.estimate, a.judged_images) == (pytest.approx(0.25), pytest.approx(0.25), 2)
    assert "everything behind" in a.method and b.method == c.method == "refit"
    assert (b.relative, c.relative) == (0.8, 0.1)


def test_error_that_is_no_lower_changes_nothing():
    before = judged([1.0, 0.8, 0.1], features=FORM)
    after = with_errors(before, {"b": np.array([0.9, 0.8])})
    assert after.of == before.of
    np.testing.assert_array_equal(after.interactions["features"], before.interactions["features"])


def test_what_a_block_does_together_with_others_shrinks_as_its_displacement_does():
    """A quarter of the error is half of the displacement: a product with another block is halved, one with itself quartered."""
    found = with_errors(judged([1.0, 0.8, 0.1], features=FORM), {"a": np.array([0.25])})
    form = found.interactions["features"][0]
    assert (form[0, 0], form[0, 1], form[1, 0]) == pytest.approx((0.25, 0.1, 0.1))
    np.testing.assert_array_equal(form[1:, 1:], FORM[1:, 1:])
    assert np.linalg.eigvalsh(form).min() > 0


def test_predicted_error_of_a_set_follows():
    blocks = table([1.0] * 3)
    before, after = (
        candidates_of(blocks, found)
        for found in (judged([1.0, 0.8, 0.1], features=FORM), with_errors(judged([1.0, 0.8, 0.1], features=FORM), {"a": np.array([0.25])}))
    )  # fmt: skip
    assert before.error_of(("a", "b")) == pytest.approx(1.0 + 0.8 + 2 * 0.2)
    assert after.error_of(("a", "b")) == pytest.approx(0.25 + 0.8 + 2 * 0.1)


def test_only_blocks_that_one_site_leaves_much_error_of_are_refitted_as_a_whole(monkeypatch: pytest.MonkeyPatch):
    teacher, feature, found = opened(tiny_mobilenet(), MOBILENET)
    here, blocks = (
        CalibrationProblem(teacher=teacher, feature=feature, images=images(12, MOBILENET)),
        droppable(tuple(found.values())),
    )
    before = measure_recoverability(here, blocks, Silent())
    errors = sorted(one.relative for one in before.of)
    monkeypatch.setattr(whole_recovery, "MISLEADING", (errors[0] + errors[-1]) / 2)
    doubtful = {one.block for one in before.of if is_doubtful(one)}
    assert doubtful
    after = rescored(here, blocks, before, Silent())
    for block, old, new in zip(blocks, before.of, after.of, strict=True):
        if block.name not in doubtful:
            assert new == old
        else:
            whole = float(verified_without(here, [block], Silent()).errors.mean())
            assert new.relative == pytest.approx(min(old.relative, whole))
