"""The report holds the whole release, loads nothing, and shows foreign text as text."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from practise_backends.terms import Interval
from practise_deploy.report import render_html, render_markdown
from practise_deploy.report.chart import bargains
from practise_deploy.report.words import count, duration, interval, number
from practise_deploy.terms import Release
from unit import releases

EVIL = "<script>alert('|')</script>"


@pytest.fixture(scope="module")
def release() -> Release:
    return releases.release()


@pytest.fixture(scope="module")
def page(release: Release) -> str:
    return render_html(release)


def test_verdict_comes_first(page: str) -> None:
    assert page.index(f"<h1>{releases.SENTENCE}</h1>") < page.index("<table>")
    assert "Promise kept" in page


def test_every_block_is_named_with_its_outcome(page: str) -> None:
    for name in releases.NAMES:
        assert f'<th scope="row">{name}</th>' in page
    assert page.count("kept: no measurable saving") == 1


def test_method_has_a_column_where_there_are_several(release: Release, page: str) -> None:
    first, *others = release.recoverability
    mixed = render_html(replace(release, recoverability=(replace(first, method="adaptors"), *others)))
    assert '<th scope="col" class="words">Method</th>\n</tr>' in mixed
    assert "closed-form refit, 500 images to fit, 125 to judge" in page


def test_page_loads_nothing(page: str) -> None:
    assert not re.search(r"https?://|\bsrc=|@import|url\(|<script|<link(?! rel=\"icon\" href=\"data:,\")", page)
    assert page.startswith("<!doctype html>")


@pytest.mark.parametrize("field", ["name", "weights", "feature"])
def test_text_of_the_network_is_escaped(release: Release, field: str) -> None:
    evil = replace(release, network=replace(release.network, **{field: EVIL}))
    assert "<script" not in render_html(evil)
    assert "&lt;script&gt;" in render_html(evil)
    assert "<script" not in render_markdown(evil)


def test_command_and_block_names_are_escaped(release: Release) -> None:
    saving, judged = release.latency.savings[0], release.recoverability[0]
    evil = replace(
        release,
        command=EVIL,
        latency=replace(release.latency, savings=(replace(saving, block=EVIL),)),
        recoverability=(replace(judged, block=EVIL),),
    )
    assert "<script" not in render_html(evil)
    text = render_markdown(evil).replace(f"    {EVIL}", "")  # code, as typed
    assert "<script" not in text
    assert "alert('\\|')" in text


def test_absent_figures_are_dashes_with_their_reasons() -> None:
    page = render_html(releases.bare_release())
    assert "None" not in page and "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    for reason in ("too few samples", "not measured here", "not judged", "no labels"):
        assert f"– ({reason}" in page
    assert "Promise broken (exit code 1)" in page
    assert "Agreement with the teacher" in page
    assert "<svg" not in page


def test_numbers_carry_their_intervals(page: str) -> None:
    assert "1.281× (1.275 to 1.287)" in page
    assert "73.4% (69.5 to 77.3)" in page
    assert "0.02 (−0.05 to 0.09)" in page


def test_markdown_is_short_and_has_intervals(release: Release) -> None:
    text = render_markdown(release)
    assert text.startswith(f"# torchvision:resnet34: {releases.SENTENCE}\n")
    assert "1.281× (1.275 to 1.287)" in text
    assert f"    {releases.COMMAND}" in text
    assert all(f"| {name} |" in text for name in releases.NAMES)
    rows = [line for line in text.splitlines() if line.startswith("| layer")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {5, 9}


def test_markdown_of_a_bare_release_says_what_is_absent() -> None:
    text = render_markdown(releases.bare_release())
    assert "None" not in text
    assert "– (too few samples)" in text


def test_chart_leaves_out_what_it_cannot_place(release: Release) -> None:
    chart = bargains(release)
    assert chart is not None
    assert chart.absent == ("layer4.2",)
    assert {point.name for point in chart.points if point.dropped} == set(releases.DROPPED)
    for point in chart.points:
        assert chart.left <= point.low <= point.x <= point.high <= chart.right
        assert chart.top <= point.y <= chart.bottom


def test_chart_of_one_block_without_spread_is_drawn(release: Release) -> None:
    flat = replace(release.latency.savings[0], saving_ms=releases.around(0.0, 0.0))
    alone = replace(release, latency=replace(release.latency, savings=(flat,)))
    assert "<svg" in render_html(alone)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (0, "0"),
        (1234.5, "1,234"),
        (-0.01234, "−0.0123"),
        (2.1e-7, "2.10e-7"),
    ],
)
def test_numbers_have_sensible_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((1.23456, 1.2, 1.3), "1.23 (1.20 to 1.30)"),
        ((-0.0001, -0.1, 0.1), "0.00 (−0.10 to 0.10)"),
        ((100.0, 96.2, 100.0), "100.0 (96.2 to 100.0)"),
        ((3.0, 3.0, 3.0), "3.000 (3.000 to 3.000)"),
        ((0.0, 0.0, 0.0), "0.00 (0.00 to 0.00)"),
        ((2e-8, 1e-8, 3e-8), "2.00e-8 (1.00e-8 to 3.00e-8)"),
    ],
)
def test_intervals_show_the_digits_that_they_support(ends: tuple[float, float, float], text: str) -> None:
    estimate, low, high = ends
    assert interval(Interval(estimate=estimate, low=low, high=high, confidence=0.95)) == text


def test_counts_and_durations_are_short() -> None:
    assert count(25_557_032) == "25.6 M"
    assert duration(3700) == "1 h 1 min"
    assert duration(61.2) == "1 min 1 s"


def test_report_needs_no_torch() -> None:
    code = "import sys, practise_deploy.report as r; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
