"""The promise, of speed and of accuracy, judged by the intervals."""

import dataclasses

import pytest

from practise_backends.terms import Comparison, Interval
from practise_deploy.outcome import Accuracy, Answer, Criterion, GateResult, OutputDiff, Verification
from practise_deploy.planning.verdict import judge
from practise_deploy.terms import Budget, Loss, Plan, WithinDrop
from samples import plans, releases

KEPT, BROKEN, NOT_PROVEN = Answer.KEPT, Answer.BROKEN, Answer.NOT_PROVEN


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


def constraint(name: str, answer: Answer, *, by_default: bool = False) -> Criterion:
    return Criterion(
        name=name, required=1.2, measured=None, answer=answer, reason=f"because of {name}", by_default=by_default
    )


def gate(*answers: Answer) -> GateResult:
    names = ("min_speedup", "max_drop")
    return gate_of(*(constraint(name, answer) for name, answer in zip(names, answers, strict=False)))


def accuracy_gate(answer: Answer, *, by_default: bool = False) -> GateResult:
    return gate_of(constraint("max_drop", answer, by_default=by_default))


def gate_of(*constraints: Criterion) -> GateResult:
    advice = "try something else" if any(one.fails for one in constraints) else ""
    return GateResult(constraints=constraints, nearest=None, advice=advice)


def right(percent: float) -> Accuracy:
    return Accuracy(percent=interval(percent, percent - 2, percent + 2), correct=int(percent), images=100)


LINK = OutputDiff(
    before="teacher",
    after="engine",
    max_abs=0.1,
    rms=0.01,
    relative_rms=0.01,
    cosine=0.99,
    agreement_percent=interval(93, 90, 95),
    images=100,
)
SOUND = Verification(
    links=(LINK,),
    accuracy={},
    loss=Loss(points=interval(0.7, 0.2, 2.4), estimated=True, agreement_percent=LINK.agreement_percent, images=100),
    images=100,
    faithful=True,
    problems=(),
)
LABELLED = dataclasses.replace(
    SOUND,
    accuracy={"teacher": right(90), "student": right(50), "ONNX": right(50), "engine": right(88)},
    loss=dataclasses.replace(SOUND.loss, points=interval(2, 0.5, 3.5), estimated=False),
)
UNFAITHFUL = dataclasses.replace(SOUND, faithful=False, problems=("ONNX -> engine: lowest cosine 0.5",))
FASTER = bench(1.3, 1.25, 1.35)


def lost(estimate: float, low: float, high: float, images: int = 100) -> Verification:
    points = interval(estimate, low, high)
    return dataclasses.replace(LABELLED, loss=dataclasses.replace(LABELLED.loss, points=points, images=images))


def test_original_at_chance_is_named_before_any_loss_of_its_accuracy():
    at_chance = dataclasses.replace(LABELLED, loss=dataclasses.replace(LABELLED.loss, above_chance=False))
    verdict = judge(plan(None), at_chance, FASTER, accuracy_gate(NOT_PROVEN))
    assert (verdict.answer, verdict.exit_code) == (NOT_PROVEN, 1)
    assert "the original itself is indistinguishable from chance by the labels (top-1 90.0%" in verdict.sentence
    assert "points lost" not in verdict.sentence


def test_kept_where_the_interval_is_above_one_and_nothing_else_was_asked():
    verdict = judge(plan(None), SOUND, bench(1.2, 1.001, 1.4), None)
    assert (verdict.answer, verdict.exit_code, verdict.reasons) == (KEPT, 0, ())
    assert verdict.kept
    assert verdict.sentence.startswith("Kept: 1.20 times as fast as the original (95% interval 1.00 to 1.40)")


@pytest.mark.parametrize("low, high, answer", [(0.9, 1.4, NOT_PROVEN), (1.0, 1.4, NOT_PROVEN), (0.8, 0.99, BROKEN)])
def test_not_kept_where_the_bad_end_does_not_exclude_no_gain(low, high, answer):
    verdict = judge(plan(None), SOUND, bench(0.97, low, high), None)
    assert (verdict.answer, verdict.kept, verdict.exit_code) == (answer, False, 1)
    assert "does not exclude 1" in verdict.reasons[0]
    assert verdict.sentence.startswith(f"{answer.value.capitalize()}: ")


def test_target_is_kept_where_its_bad_end_reaches_it():
    assert judge(plan(20.0), SOUND, bench(1.30, 1.2501, 1.35), None).exit_code == 0  # 1.25 times as fast is 20% less


def test_target_is_not_proven_where_it_is_within_the_interval_and_broken_where_none_of_it_reaches_it():
    unsure, missed = (
        judge(plan(20.0), SOUND, bench(1.2, low, high), None) for low, high in ((1.15, 1.26), (1.15, 1.24))
    )
    assert (unsure.answer, unsure.exit_code) == (NOT_PROVEN, 1)
    assert unsure.sentence.startswith("Not proven: 1.20 times as fast")
    assert unsure.reasons[0].startswith(
        "required: 20.0% less latency; measured 16.7%, lower bound 13.0%; its interval does not tell"
    )
    assert (missed.answer, missed.exit_code) == (BROKEN, 1)
    assert missed.reasons == ("required: 20.0% less latency; measured 16.7%, lower bound 13.0%",)


def test_slower_network_gives_one_reason():
    verdict = judge(plan(20.0), SOUND, bench(0.8, 0.7, 0.9), None)
    assert verdict.exit_code == 1 and len(verdict.reasons) == 1


@pytest.mark.parametrize("low", [0.5, 1.5])
def test_unfaithful_network_fails_however_fast_it_is(low):
    verdict = judge(plan(20.0), UNFAITHFUL, bench(2.0, low, 2.5), None)
    assert (verdict.answer, verdict.exit_code) == (BROKEN, 4)
    assert verdict.reasons == UNFAITHFUL.problems


def test_sentence_tells_the_loss_and_the_accuracy_of_the_original_and_of_what_is_shipped():
    sentence = judge(plan(None), LABELLED, bench(2, 1.9, 2.1), None).sentence
    assert sentence == (
        "Kept: 2.00 times as fast as the original (95% interval 1.90 to 2.10), "
        "2.0 points lost [0.5, 3.5] (top-1 90.0% → 88.0% on 100 held-out images)."
    )


def test_sentence_tells_the_estimated_loss_and_the_agreement_where_there_are_no_labels():
    sentence = judge(plan(None), SOUND, bench(2, 1.9, 2.1), None).sentence
    assert sentence.endswith(
        ", 0.7 points lost [0.2, 2.4] (estimated without labels, the original's answer on 93.0% of 100 held-out images)."
    )


def test_sentence_says_that_there_is_no_accuracy_where_the_output_is_no_classifiers():
    unknown = dataclasses.replace(SOUND, loss=None)
    sentence = judge(plan(None), unknown, bench(2, 1.9, 2.1), None).sentence
    assert sentence.endswith(", no loss can be measured, since the output is not what the task is about (see --task).")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ((-1.0, -2.5, 0.5), "1.0 points gained [-0.5, 2.5]"),
        ((-3.0, -4.0, -2.0), "3.0 points gained [2.0, 4.0]"),
        ((-0.06, -1.0, 0.9), "0.1 points gained [-0.9, 1.0]"),
        ((0.0, -1.0, 1.0), "0.0 points lost [-1.0, 1.0]"),
        ((-0.04, -1.0, 0.9), "0.0 points lost [-1.0, 0.9]"),
        ((-1.0, -2.0, 0.0), "1.0 points gained [0.0, 2.0]"),
        ((0.6, -0.03, 1.2), "0.6 points lost [0.0, 1.2]"),
    ],
)
def test_gain_is_worded_as_a_gain_and_nothing_as_less_than_nothing(points: tuple[float, float, float], said: str):
    sentence = judge(plan(None), lost(*points), FASTER, None).sentence
    assert f", {said} (top-1" in sentence


# The gate.


def test_gate_that_passes_changes_nothing():
    assert judge(plan(None), SOUND, FASTER, gate(KEPT, KEPT)) == judge(plan(None), SOUND, FASTER, None)


def test_gate_that_fails_breaks_the_promise_with_every_failing_demand_and_the_advice():
    verdict = judge(plan(None), SOUND, FASTER, gate(BROKEN, BROKEN))
    assert (verdict.answer, verdict.exit_code) == (BROKEN, 1)
    assert verdict.reasons == (
        "--min-speedup: because of min_speedup",
        "--max-drop: because of max_drop",
        "try something else",
    )
    assert judge(plan(None), SOUND, bench(1.3, 1.25, 1.35), gate(KEPT, BROKEN)).reasons[0].startswith("--max-drop")


@pytest.mark.parametrize(
    ("answer", "by_default", "code"),
    [
        (KEPT, False, 0),
        (KEPT, True, 0),
        (NOT_PROVEN, False, 1),
        (NOT_PROVEN, True, 0),
        (BROKEN, False, 1),
        (BROKEN, True, 1),
    ],
)
def test_exit_code_is_1_where_a_demand_is_broken_or_one_that_was_asked_is_not_proven(
    answer: Answer, by_default: bool, code: int
):
    verdict = judge(plan(None), LABELLED, FASTER, accuracy_gate(answer, by_default=by_default))
    assert (verdict.answer, verdict.kept, verdict.exit_code) == (answer, answer is KEPT, code)
    assert verdict.sentence.startswith(f"{answer.value.capitalize()}: ")
    assert ("try something else" in verdict.reasons) is (code == 1)


def test_default_is_named_as_such_where_it_is_not_kept():
    unverified = dataclasses.replace(plan(None), considered=())
    verdict = judge(unverified, LABELLED, FASTER, accuracy_gate(NOT_PROVEN, by_default=True))
    assert verdict.reasons == ("--max-drop 1.2 (the default): because of max_drop",)
    asked = judge(unverified, LABELLED, FASTER, accuracy_gate(NOT_PROVEN))
    assert asked.reasons == ("--max-drop: because of max_drop", "try something else")


def test_what_is_not_proven_is_told_beside_what_the_images_of_the_fit_say_of_the_set():
    told = "before finetuning: 1.5 points lost [0.4, 2.6] on 125 images that the judged fits did not see"
    assert judge(plan(None), LABELLED, FASTER, accuracy_gate(NOT_PROVEN, by_default=True)).reasons[1:] == (told,)
    for answer in (KEPT, BROKEN):
        assert told not in judge(plan(None), LABELLED, FASTER, accuracy_gate(answer)).reasons


@pytest.mark.parametrize("by_default", [False, True])
def test_headline_says_the_loss_before_the_speed_that_it_bought_where_it_is_too_large(by_default: bool):
    verdict = judge(plan(None), lost(9.7, 7.1, 12.4), FASTER, accuracy_gate(BROKEN, by_default=by_default))
    assert verdict.sentence == (
        "Broken: 9.7 points lost [7.1, 12.4] (top-1 90.0% → 88.0% on 100 held-out images), "
        "1.30 times as fast as the original (95% interval 1.25 to 1.35)."
    )


def test_headline_says_the_loss_first_where_it_is_an_estimate_too():
    verdict = judge(plan(None), SOUND, FASTER, accuracy_gate(BROKEN))
    assert verdict.sentence.startswith("Broken: 0.7 points lost [0.2, 2.4] (estimated without labels, the original's")


def test_headline_says_the_speed_first_where_only_that_is_broken():
    verdict = judge(plan(None), LABELLED, FASTER, gate(BROKEN, KEPT))
    assert verdict.sentence.startswith("Broken: 1.30 times as fast")
    assert verdict.sentence.endswith("(top-1 90.0% → 88.0% on 100 held-out images).")


@pytest.mark.parametrize("by_default", [False, True])
def test_headline_of_what_is_not_proven_ends_with_what_cannot_be_excluded(by_default: bool):
    unsure = lost(0.0, -13.3, 13.3, images=2500)
    verdict = judge(plan(None), unsure, FASTER, accuracy_gate(NOT_PROVEN, by_default=by_default))
    assert verdict.sentence == (
        "Not proven: 1.30 times as fast as the original (95% interval 1.25 to 1.35), "
        "0.0 points lost (top-1 90.0% → 88.0%) on 2,500 held-out images, where a loss of up to 13.3 points cannot be excluded."
    )


def test_headline_of_what_is_not_proven_says_why_nothing_can_be_told_of_what_is_no_classifier():
    unknown = dataclasses.replace(SOUND, loss=None)
    verdict = judge(plan(None), unknown, FASTER, accuracy_gate(NOT_PROVEN, by_default=True))
    assert (verdict.answer, verdict.exit_code) == (NOT_PROVEN, 0)
    assert verdict.sentence.startswith("Not proven: 1.30 times as fast")
    assert verdict.sentence.endswith(
        ", no loss can be measured, since the output is not what the task is about (see --task)."
    )


def test_missed_speed_breaks_what_is_not_proven_and_the_doubt_is_still_told():
    verdict = judge(plan(None), lost(0, -9, 9), FASTER, gate(BROKEN, NOT_PROVEN))
    assert (verdict.answer, verdict.exit_code) == (BROKEN, 1)
    assert verdict.sentence.startswith("Broken: 1.30 times as fast")
    assert verdict.sentence.endswith(" on 100 held-out images, where a loss of up to 9.0 points cannot be excluded.")
    slow = judge(plan(20.0), lost(0, -9, 9), bench(1.2, 1.15, 1.24), accuracy_gate(NOT_PROVEN, by_default=True))
    assert (slow.answer, slow.exit_code) == (BROKEN, 1)
    assert [reason.split(" ")[0] for reason in slow.reasons] == ["required:", "--max-drop", "before"]


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget(reduce_percent=22.0), "22% less latency"),
        (Budget(target_ms=2.5), "2.5 ms"),
        (Budget(drop=4), "4 blocks fewer"),
    ],
)
def test_headline_of_a_smaller_set_than_asked_says_what_the_target_would_have_cost(budget: Budget, said: str):
    first, second = plans.plan().considered[:2]
    within = WithinDrop(demand_points=2.0, target_set=first, sets=(), best=second)
    reduced = dataclasses.replace(plan(None), budget=budget, within_drop=within)
    for answer in (KEPT, NOT_PROVEN, BROKEN):
        sentence = judge(reduced, LABELLED, FASTER, accuracy_gate(answer)).sentence
        assert f"; the target, {said}, would have cost more than --max-drop 2 allows." in sentence
        assert "the target" not in judge(plan(None), LABELLED, FASTER, accuracy_gate(answer)).sentence


def test_precision_that_was_not_kept_breaks_the_promise_whatever_the_gate_says():
    verdict = judge(plan(None), LABELLED, FASTER, gate(KEPT, KEPT), ["only half of it runs in fp16"])
    assert (verdict.answer, verdict.exit_code, verdict.reasons) == (BROKEN, 1, ("only half of it runs in fp16",))


def test_missed_target_is_told_beside_the_gate():
    verdict = judge(plan(20.0), SOUND, bench(1.2, 1.15, 1.25), gate(BROKEN))
    assert verdict.reasons[0].startswith("required: 20.0% less latency")
    assert len(verdict.reasons) == 3


def test_unfaithful_network_is_told_before_any_gate():
    verdict = judge(plan(None), UNFAITHFUL, bench(1.3, 1.25, 1.35), gate(BROKEN))
    assert (verdict.exit_code, verdict.reasons) == (4, UNFAITHFUL.problems)


# A table of a device that is not at hand.


@pytest.mark.parametrize(("target", "code"), [(None, 0), (19.0, 0), (19.1, 1), (21.0, 1)])
def test_target_on_another_device_is_judged_by_the_bad_end_of_its_prediction(target: float | None, code: int):
    verdict = judge(away(target), SOUND, bench(1.3, 1.25, 1.35), None)
    assert verdict.exit_code == code
    said = f"required: {target}% less latency on a board; predicted 21.0%, lower bound 19.0%"
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
