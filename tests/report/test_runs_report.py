"""Several runs on one page: a row a run, and a word of care where rows cannot be compared."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from practise_deploy.outcome import Answer, Release
from practise_deploy.report import render_runs_html, render_runs_markdown
from practise_deploy.report.charts.speedups import speedups
from practise_deploy.report.runs import differences, results_table
from samples import releases

EVIL = '"></svg><script>alert(1)</script>'


def slower(release: Release) -> Release:
    verdict = replace(release.verdict, answer=Answer.BROKEN, exit_code=1, sentence="Too slow.")
    return replace(release, speedup=releases.around(1.09, 0.02), verdict=verdict)


@pytest.fixture(scope="module")
def runs() -> dict[str, Release]:
    whole = releases.release()
    return {"first": whole, "second": slower(whole), "features": releases.bare_release()}


def test_page_has_one_row_a_run_in_each_table(runs: dict[str, Release]) -> None:
    page = render_runs_html(runs)
    for name in runs:
        assert page.count(f'role="rowheader">{name}</th>') == 2
    assert "<h1>3 runs compared</h1>" in page
    for said in (
        "1.281× (1.275 to 1.287)",
        "1.090× (1.070 to 1.110)",
        "73.4% (69.5 to 77.3)",
        "broken (exit code 1)",
        "1 h 4 min",
    ):
        assert said in page


def test_lead_names_the_fastest_run_that_kept_its_promise(runs: dict[str, Release]) -> None:
    told = render_runs_markdown(runs)
    assert "1 of 3 kept their promise; the fastest of them is “first”: 1.281× (1.275 to 1.287)" in told
    none = {name: slower(release) for name, release in runs.items()}
    assert "No run kept its promise." in render_runs_markdown(none)


def test_page_loads_nothing_and_escapes_names(runs: dict[str, Release]) -> None:
    page = render_runs_html({**runs, EVIL: runs["first"]})
    assert not re.search(r"https?://|\bsrc=|@import|url\(|<script|<a href=\"(?!#)", page)
    assert "<script" not in render_runs_markdown({EVIL: runs["first"]})


def test_chart_holds_the_runs_of_classifiers(runs: dict[str, Release]) -> None:
    chart = speedups(runs)
    assert chart is not None
    assert [(mark.name, mark.shape) for mark in chart.marks] == [("first", "dot"), ("second", "cross")]
    assert chart.marks[0].y == pytest.approx(-0.6) and chart.marks[0].y_bar == pytest.approx((-1.4, 0.2))
    assert "Not in the chart, as they are not classifiers: features." in render_runs_html(runs)


def test_estimated_loss_is_in_the_picture_and_in_its_row_as_an_estimate(runs: dict[str, Release]) -> None:
    both = {"first": runs["first"], "unlabelled": releases.unlabelled()}
    chart = speedups(both)
    assert chart is not None
    known, guessed = chart.marks
    assert (guessed.y, guessed.y_bar) == (known.y, known.y_bar)
    assert "lost 0.6 points (−0.2 to 1.4), promise kept" in known.tooltip
    assert "0.6 points (−0.2 to 1.4), estimated" in guessed.tooltip and "promise kept" in guessed.tooltip
    lost = results_table(both).head.index("Points lost")
    first, unlabelled = results_table(both).rows
    assert first[lost] == "0.6 points (−0.2 to 1.4)"
    assert unlabelled[lost] == "0.6 points (−0.2 to 1.4), estimated"
    assert "– (no labels)" in unlabelled
    assert "Not in the picture" not in render_runs_html(both)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (Answer.KEPT, 0, "kept"),
        (Answer.NOT_PROVEN, 0, "not proven"),
        (Answer.NOT_PROVEN, 1, "not proven (exit code 1)"),
        (Answer.BROKEN, 1, "broken (exit code 1)"),
        (Answer.BROKEN, 4, "broken (exit code 4)"),
    ],
)
def test_promise_is_told_with_its_exit_code_and_only_what_is_kept_is_counted(
    runs: dict[str, Release], answer: Answer, code: int, said: str
) -> None:
    first = replace(runs["first"], verdict=replace(runs["first"].verdict, answer=answer, exit_code=code))
    told = results_table({"first": first, "second": runs["second"]})
    assert told.rows[0][1] == said
    assert told.strong == ((0,) if answer is Answer.KEPT else ())
    chart = speedups({"first": first})
    assert chart is not None and chart.marks[0].shape == ("dot" if answer is Answer.KEPT else "cross")
    assert chart.marks[0].tooltip.endswith(f"promise {answer.value}")
    assert any("not proven" in key.text for key in chart.keys) is (answer is not Answer.KEPT)
    assert ("No run kept its promise." in render_runs_markdown({"first": first})) is (answer is not Answer.KEPT)


def test_of_what_is_no_classifier_there_is_no_picture() -> None:
    bare = {"bare": releases.bare_release()}
    assert speedups(bare) is None
    assert "<svg" not in render_runs_html(bare)


def test_equal_circumstances_need_no_word_of_care(runs: dict[str, Release]) -> None:
    assert differences(runs) == ()
    assert "Careful" not in render_runs_markdown(runs)


@pytest.mark.parametrize("what", ["network", "device", "conditions", "held-out images"])
def test_rows_that_cannot_be_compared_carry_a_warning(what: str) -> None:
    one = releases.release()
    other = {
        "network": replace(one, network=replace(one.network, sha256="0" * 64)),
        "device": replace(one, bench=replace(one.bench, device=replace(releases.DEVICE, fingerprint="0" * 64))),
        "conditions": replace(one, bench=replace(one.bench, conditions=replace(releases.CONDITIONS, threads=1))),
        "held-out images": replace(one, verification=replace(one.verification, images=50)),
    }[what]
    found = differences({"one": one, "other": other})
    assert len(found) == 1 and found[0].startswith(f"The runs differ in {what} (")
    assert f"The runs differ in {what}" in render_runs_html({"one": one, "other": other})


def test_no_run_at_all_is_said() -> None:
    assert "There is no run to show." in render_runs_html({})
