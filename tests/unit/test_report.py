"""The report holds the whole release, loads nothing, and shows foreign text as text."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from practise_backends.terms import Interval
from practise_deploy.report import render_html, render_markdown, render_runs_html
from practise_deploy.report.words import count, duration, interval, number
from practise_deploy.terms import Release
from unit import plans, releases

EVIL = "<script>alert('|')</script>"


class Outline(HTMLParser):
    """The tags of a page with their attributes, and whether they nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)


@pytest.fixture(scope="module")
def release() -> Release:
    return releases.release()


@pytest.fixture(scope="module")
def page(release: Release) -> str:
    return render_html(release)


def read(page: str) -> str:
    """The page without the marks of where a line may end."""
    return re.sub(r"</?span[^>]*>", "", page)


def test_verdict_comes_first(page: str) -> None:
    assert page.index(f"<h1>{releases.SENTENCE}</h1>") < page.index("<table")
    assert "Promise kept" in page


def test_every_block_is_named_with_its_outcome(page: str) -> None:
    for name in plans.NAMES:
        assert f'role="rowheader">{name}</th>' in page
    assert page.count("kept: no measurable saving") == 1


def test_method_has_a_column_where_there_are_several(release: Release, page: str) -> None:
    first, *others = release.recoverability
    mixed = render_html(replace(release, recoverability=(replace(first, method="adaptors"), *others)))
    assert 'class="words">Method</th>\n</tr>' in mixed
    assert "closed-form refit, 500 images to fit, 125 to judge" in page


def test_page_loads_nothing(page: str) -> None:
    assert not re.search(r"https?://|\bsrc=|@import|url\(|<script|<link(?! rel=\"icon\" href=\"data:,\")", page)
    assert page.startswith("<!doctype html>")


def test_tags_nest_and_names_are_given_once(page: str) -> None:
    outline = Outline(page)
    assert not outline.crossed and not outline.open
    names = [found["id"] for _, found in outline.tags if "id" in found]
    assert len(names) == len(set(names))
    targets = {str(found["href"])[1:] for tag, found in outline.tags if tag == "a"}
    assert targets <= set(names) and "content" in targets


def test_every_picture_has_a_name_and_a_table_behind_it(page: str) -> None:
    pictures = [found for tag, found in Outline(page).tags if tag == "svg" and "aria-hidden" not in found]
    assert len(pictures) == 2 * 6  # for a desk and for a phone
    assert all(found["role"] == "img" and "table" in str(found["aria-label"]) for found in pictures)


def test_whatever_scrolls_can_be_reached_by_keyboard(page: str) -> None:
    scrolling = [found for tag, found in Outline(page).tags if found.get("class") == "scroll" or tag == "pre"]
    assert len(scrolling) > 8
    assert all(found["tabindex"] == "0" and found["aria-label"] for found in scrolling)


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
    for reason in ("too few samples", "not measured here", "not judged", "no labels", "not recorded"):
        assert f"– ({reason}" in read(page)
    assert "Promise broken (exit code 1)" in page
    assert "Agreement with the teacher" in page
    assert 'id="gate"' not in page and 'id="throughput"' not in page and 'id="trade"' not in page
    assert "<svg" not in page
    assert "The raw samples are not at hand" in page


def test_lines_of_a_wide_table_end_before_an_interval(page: str) -> None:
    assert '<span class="whole">22.50%</span> <span class="whole">(22.10 to 22.90)</span>' in page


def test_numbers_carry_their_intervals(page: str) -> None:
    for said in ("1.281× (1.275 to 1.287)", "73.4% (69.5 to 77.3)", "0.02 (−0.05 to 0.09)"):
        assert said in read(page)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -3.0, 1e12])
def test_numbers_that_cannot_be_are_no_reason_to_fail(release: Release, value: float) -> None:
    odd = replace(releases.around(value, 0.1), low=value)
    figures = tuple(replace(one, p50_ms=odd, p90_ms=odd, p99_ms=odd) for one in release.bench.engines)
    points = tuple(replace(point, reduction_percent=odd, agreement_percent=odd) for point in release.frontier.points)
    sets = tuple(replace(one, predicted_percent=value, measured_percent=odd) for one in release.latency.sets)
    links = tuple(replace(link, cosine=value, max_abs=value) for link in release.verification.links)
    broken = replace(
        release,
        speedup=odd,
        bench=replace(release.bench, engines=figures, speedup=odd, session_percent=value),
        frontier=replace(release.frontier, points=points),
        latency=replace(release.latency, sets=sets, additivity=odd, baseline_ms=odd),
        verification=replace(release.verification, links=links, drop_points=odd),
        recoverability=tuple(replace(one, relative=value) for one in release.recoverability),
        plan=replace(
            release.plan,
            set_share=value,
            chosen_share=dict.fromkeys(release.plan.chosen_share, value),
            considered=tuple(
                replace(one, predicted_error=value, verified_error=value, predicted_percent=odd)
                for one in release.plan.considered
            ),
        ),
    )
    for text in (render_html(broken), render_runs_html({"one": broken, "other": release})):
        body = text.split("</style>")[1]
        assert ">nan" not in body and " nan" not in body and "(nan" not in body
    assert "nan" not in render_markdown(broken)


def test_predicted_and_measured_saving_stand_side_by_side(release: Release, page: str) -> None:
    for text in (page, render_markdown(release)):
        assert "Predicted and measured" in text
        assert "22.50% (22.10 to 22.90)" in text and "21.94% (21.57 to 22.30)" in text
        assert "measured over predicted: 0.957 (0.943 to 0.971)" in text


def test_prediction_stands_alone_where_the_device_is_not_at_hand(release: Release) -> None:
    attempts = tuple(replace(one, measured_percent=None) for one in release.plan.attempts)
    away = replace(release, plan=replace(release.plan, attempts=attempts, measured_percent=None))
    assert read(render_html(away)).count("– (the device of the table is not at hand)") == 3


def test_sets_that_were_considered_are_told_with_why_they_were_not_taken(release: Release, page: str) -> None:
    for text in (page, render_markdown(release)):
        assert "Sets that were considered" in text
        assert "0.0247" in text and "too dear" in text and "taken" in text
        assert "In resamples, %" in text
        assert "71.0% of the resamples; its least sure block, layer2.3, in 76.0%" in text


def test_chain_is_drawn_step_by_step(page: str) -> None:
    chain = page[page.index('<ol class="chain">') : page.index("</ol>")]
    assert [*re.findall(r"<strong>(\w+)</strong>", chain)] == ["teacher", "student", "ONNX", "engine"]
    assert chain.count("same top-1 class") == 3
    assert "Directly, teacher to engine: 91.4% (88.3 to 91.4) same top-1 class" in page


def test_gate_says_what_failed_and_what_would_pass(release: Release) -> None:
    failed = replace(release, gate=releases.gate(most_points=1.0))
    for text in (render_html(failed), render_markdown(failed)):
        assert "Failed: accuracy lost." in text
        assert "at most 1 point" in text and "0.6 points (−0.2 to 1.4)" in text
        assert "The nearest set that passes: without layer1.1, layer1.2 (closed form)" in text
        assert "2,000 would decide it" in text


def test_estimator_and_sessions_are_told(release: Release, page: str) -> None:
    assert "The estimator is the median: between sessions of one file its error is 0.15%" in page
    assert "4 of each network" in page
    other = replace(release, bench=replace(release.bench, estimator="least", session_percent=float("nan")))
    assert "its error is 0.22%, the least of those tried is 0.15%" in render_html(other)
    assert "– (no network was opened twice)" in render_html(other)
    assert "0.38% (standard deviation)" in page


def test_readings_of_the_machine_say_what_they_mean(page: str) -> None:
    for said in ("0.800%", "3 stops", "2,390 to 3,412 MHz", "time that a hypervisor gave to others"):
        assert said in page


def test_throughput_is_refused_with_a_reason(page: str) -> None:
    assert "– (more memory than the device has)" in read(page)
    assert "51.7 (51.1 to 52.3)" in read(page)


def test_markdown_is_short_and_has_intervals(release: Release) -> None:
    text = render_markdown(release)
    assert text.startswith(f"# torchvision:resnet34: {releases.SENTENCE}\n")
    assert "1.281× (1.275 to 1.287)" in text
    assert f"    {releases.COMMAND}" in text
    assert all(f"| {name} |" in text for name in plans.NAMES)
    assert "2. **student**: 91.4% (88.3 to 91.4) same top-1 class" in text
    rows = [line for line in text.splitlines() if line.startswith("| layer")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {4, 5, 7, 10}


def test_markdown_of_a_bare_release_says_what_is_absent() -> None:
    text = render_markdown(releases.bare_release())
    assert "None" not in text
    assert "– (too few samples)" in text


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
