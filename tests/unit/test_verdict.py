"""The promise, judged at the bad end of the intervals."""

import dataclasses

import pytest

from practise_backends.terms import Conditions, Device, Interval
from practise_deploy.shipping.verdict import judge
from practise_deploy.terms import Accuracy, Budget, Link, Plan, Speedup, Verification


def interval(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate=estimate, low=low, high=high, confidence=0.95)


def plan(target_percent: float | None) -> Plan:
    return Plan(
        budget=Budget(reduce_percent=target_percent), target_percent=target_percent, baseline_ms=10.0, dropped=("a",),
        kept=(), scores={}, predicted_ms=8.0, measured_percent=interval(20, 19, 21), attempts=(), reached=True,
    )  # fmt: skip


def bench(estimate: float, low: float, high: float) -> Speedup:
    return Speedup(
        speedup=interval(estimate, low, high), aa_ratio=interval(1, 1, 1), engines=(), conditions=Conditions(),
        device=Device(name="d", fingerprint="f", versions={}, facts={}), rounds=30, discarded=(), stopped_because="",
        verdict="",
    )  # fmt: skip


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
    verdict = judge(plan(None), SOUND, bench(1.2, 1.001, 1.4))
    assert (verdict.kept, verdict.exit_code, verdict.reasons) == (True, 0, ())
    assert verdict.sentence.startswith("Kept: 1.20 times as fast as the original (95% interval 1.00 to 1.40)")


@pytest.mark.parametrize("low", [0.9, 1.0])
def test_broken_where_the_bad_end_does_not_exclude_no_gain(low):
    verdict = judge(plan(None), SOUND, bench(1.2, low, 1.4))
    assert (verdict.kept, verdict.exit_code) == (False, 1)
    assert "does not exclude 1" in verdict.reasons[0]
    assert verdict.sentence.startswith("Broken: ")


def test_target_is_kept_where_its_bad_end_reaches_it():
    assert judge(plan(20.0), SOUND, bench(1.30, 1.2501, 1.35)).exit_code == 0  # 1.25 times as fast is 20% less


def test_target_is_broken_where_only_the_estimate_reaches_it():
    verdict = judge(plan(20.0), SOUND, bench(1.30, 1.2499, 1.35))
    assert (verdict.kept, verdict.exit_code) == (False, 1)
    assert verdict.reasons == ("asked for 20.0% less latency; measured 23.1%, surely 20.0%",)


def test_slower_network_gives_one_reason():
    verdict = judge(plan(20.0), SOUND, bench(0.8, 0.7, 0.9))
    assert verdict.exit_code == 1 and len(verdict.reasons) == 1


@pytest.mark.parametrize("low", [0.5, 1.5])
def test_unfaithful_network_fails_however_fast_it_is(low):
    verdict = judge(plan(20.0), BROKEN, bench(2.0, low, 2.5))
    assert (verdict.kept, verdict.exit_code) == (False, 4)
    assert verdict.reasons == BROKEN.problems


def test_sentence_tells_the_accuracy_of_what_is_shipped_and_of_the_original():
    labelled = dataclasses.replace(
        SOUND, accuracy={"teacher": right(90), "student": right(50), "ONNX": right(50), "engine": right(88)}
    )
    assert (
        "top-1 88.0% against 90.0% on 100 held-out images" in judge(plan(None), labelled, bench(2, 1.9, 2.1)).sentence
    )


def test_sentence_tells_the_agreement_where_there_are_no_labels():
    sentence = judge(plan(None), SOUND, bench(2, 1.9, 2.1)).sentence
    assert "same top-1 class as the original on 93.0% of 100 held-out images (no labels)" in sentence
