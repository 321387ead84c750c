"""The promise, judged at the bad end of the intervals."""

import dataclasses

import pytest

from practise_backends.terms import Comparison, Interval
from practise_deploy.shipping.verdict import judge
from practise_deploy.terms import Accuracy, Constraint, Gate, Link, Plan, Verification
from unit import plans, releases


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, confidence=0.95)


def plan(target_percent: float | None) -> Plan:
    return dataclasses.replace(plans.plan(), target_percent=target_percent)


def away(target_percent: float | None) -> Plan:
    """Planned with a table of a device that is not at hand: 21% predicted, 19% at the bad end."""
    return dataclasses.replace(
        plan(target_percent), device="a board", measured_percent=None, predicted_percent=interval(21, 19, 23)
    )


def bench(estimate: float, low: float, high: float) -> Comparison:
    return dataclasses.replace(releases.comparison(), speedup=interval(estimate, low, high))


def gate(*passed: bool) -> Gate:
    names = ("min_speedup", "max_drop")
    return Gate(
        constraints=tuple(
            Constraint(name=name, asked=1.2, found=None, passed=one, reason=f"because of {name}")
            for name, one in zip(names, passed, strict=False)
        ),
        passed=all(passed),
        nearest=None,
        advice="" if all(passed) else "try something else",
    )


def right(percent: float) -> Accuracy:
    return Accuracy(percent=interval(percent, percent - 2, percent + 2), correct=int(percent), images=100)


LINK = Link(
    before="teacher",
    after="engine",
    max_abs=0.1,
    rms=0.01,
    relative_rms=0.01,
    cosine=0.99,
    agreement_percent=interval(93, 90, 95),
    images=100,
)
SOUND = Verification(links=(LINK,), accuracy={}, drop_points=None, images=100, faithful=True, problems=())
BROKEN = dataclasses.replace(SOUND, faithful=False, problems=("ONNX -> engine: lowest cosine 0.5",))


def test_kept_where_the_interval_is_above_one_and_nothing_else_was_asked():
    verdict = judge(plan(None), SOUND, bench(1.2, 1.001, 1.4), None)
    assert (verdict.kept, verdict.exit_code, verdict.reasons) == (True, 0, ())
    assert verdict.sentence.startswith("Kept: 1.20 times as fast as the original (95% interval 1.00 to 1.40)")


@pytest.mark.parametrize("low", [0.9, 1.0])
def test_broken_where_the_bad_end_does_not_exclude_no_gain(low):
    verdict = judge(plan(None), SOUND, bench(1.2, low, 1.4), None)
    assert (verdict.kept, verdict.exit_code) == (False, 1)
    assert "does not exclude 1" in verdict.reasons[0]
    assert verdict.sentence.startswith("Broken: ")


def test_target_is_kept_where_its_bad_end_reaches_it():
    assert judge(plan(20.0), SOUND, bench(1.30, 1.2501, 1.35), None).exit_code == 0  # 1.25 times as fast is 20% less


def test_target_is_broken_where_only_the_estimate_reaches_it():
    verdict = judge(plan(20.0), SOUND, bench(1.30, 1.2499, 1.35), None)
    assert (verdict.kept, verdict.exit_code) == (False, 1)
    assert verdict.reasons == ("asked for 20.0% less latency; measured 23.1%, surely 20.0%",)


def test_slower_network_gives_one_reason():
    verdict = judge(plan(20.0), SOUND, bench(0.8, 0.7, 0.9), None)
    assert verdict.exit_code == 1 and len(verdict.reasons) == 1


@pytest.mark.parametrize("low", [0.5, 1.5])
def test_unfaithful_network_fails_however_fast_it_is(low):
    verdict = judge(plan(20.0), BROKEN, bench(2.0, low, 2.5), None)
    assert (verdict.kept, verdict.exit_code) == (False, 4)
    assert verdict.reasons == BROKEN.problems


def test_sentence_tells_the_accuracy_of_what_is_shipped_and_of_the_original():
    labelled = dataclasses.replace(
        SOUND, accuracy={"teacher": right(90), "student": right(50), "ONNX": right(50), "engine": right(88)}
    )
    assert (
        "top-1 88.0% against 90.0% on 100 held-out images"
        in judge(plan(None), labelled, bench(2, 1.9, 2.1), None).sentence
    )


def test_sentence_tells_the_agreement_where_there_are_no_labels():
    sentence = judge(plan(None), SOUND, bench(2, 1.9, 2.1), None).sentence
    assert "same top-1 class as the original on 93.0% of 100 held-out images (no labels)" in sentence


# The gate.


def test_gate_that_passes_changes_nothing():
    assert judge(plan(None), SOUND, bench(1.3, 1.25, 1.35), gate(True, True)) == judge(
        plan(None), SOUND, bench(1.3, 1.25, 1.35), None
    )


def test_gate_that_fails_breaks_the_promise_with_every_failing_demand_and_the_advice():
    verdict = judge(plan(None), SOUND, bench(1.3, 1.25, 1.35), gate(False, False))
    assert (verdict.kept, verdict.exit_code) == (False, 1)
    assert verdict.reasons == (
        "--min-speedup: because of min_speedup",
        "--max-drop: because of max_drop",
        "try something else",
    )
    assert judge(plan(None), SOUND, bench(1.3, 1.25, 1.35), gate(True, False)).reasons[0].startswith("--max-drop")


def test_missed_target_is_told_beside_the_gate():
    verdict = judge(plan(20.0), SOUND, bench(1.2, 1.15, 1.25), gate(False))
    assert verdict.reasons[0].startswith("asked for 20.0% less latency")
    assert len(verdict.reasons) == 3


def test_unfaithful_network_is_told_before_any_gate():
    verdict = judge(plan(None), BROKEN, bench(1.3, 1.25, 1.35), gate(False))
    assert (verdict.exit_code, verdict.reasons) == (4, BROKEN.problems)


# A table of a device that is not at hand.


@pytest.mark.parametrize(("target", "code"), [(None, 0), (19.0, 0), (19.1, 1), (21.0, 1)])
def test_target_on_another_device_is_judged_by_the_bad_end_of_its_prediction(target: float | None, code: int):
    verdict = judge(away(target), SOUND, bench(1.3, 1.25, 1.35), None)
    assert verdict.exit_code == code
    said = f"asked for {target}% less latency on a board; predicted 21.0%, surely 19.0%"
    assert verdict.reasons == ((said,) if code else ())


def test_prediction_for_another_device_that_may_be_no_saving_breaks_the_promise():
    plan = dataclasses.replace(away(None), predicted_percent=interval(0.3, -2.0, 2.6))
    verdict = judge(plan, SOUND, bench(1.3, 1.25, 1.35), None)
    assert verdict.exit_code == 1
    assert verdict.reasons == ("the predicted reduction on a board, -2.0 to 2.6%, does not exclude none",)


def test_speed_here_neither_keeps_nor_breaks_a_promise_about_another_device():
    assert judge(away(19.0), SOUND, bench(0.8, 0.7, 0.9), None).kept
    assert not judge(away(22.0), SOUND, bench(3.0, 2.9, 3.1), None).kept


def test_sentence_says_what_was_predicted_and_where_it_was_not_measured():
    sentence = judge(away(None), SOUND, bench(1.2, 1.1, 1.3), None).sentence
    assert "21.0% less latency predicted for a board (19.0 to 23.0), not measured there" in sentence
    assert f"on {releases.DEVICE.name} 1.20 times as fast" in sentence
