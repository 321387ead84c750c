"""The report holds the whole release, loads nothing, and shows foreign text as text."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from practise_backends.results.formatting import count, interval, number
from practise_backends.terminal import duration
from practise_backends.terms import CPU, Interval
from practise_deploy.outcome import Answer, Release
from practise_deploy.report import render_html, render_markdown, render_runs_html, tables
from practise_deploy.report.demands import demands, outcome
from practise_deploy.report.formatting import points_lost
from practise_deploy.report.headline import quality
from practise_deploy.report.rows import plan_rows
from practise_deploy.terms import WithinDrop
from samples import plans, releases

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
    assert "closed-form refit, 500 images to fit, 125 to validate" in page


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
    for reason in ("too few samples", "not measured here", "not judged", "no answers to the task", "not recorded"):
        assert f"– ({reason}" in read(page)
    assert "Promise broken (exit code 1)" in page
    assert "Accuracy lost" in page and "– (no answers to the task)" in read(page)
    assert "loss of accuracy is an estimate" not in page
    assert 'id="gate"' not in page and 'id="throughput"' not in page and 'id="trade"' not in page
    assert "<svg" not in page
    assert "The raw samples are missing" in page


def test_lines_of_a_wide_table_end_before_an_interval(page: str) -> None:
    assert '<span class="whole">22.50%</span> <span class="whole">(22.10 to 22.90)</span>' in page


def test_numbers_carry_their_intervals(page: str) -> None:
    for said in ("1.281× (1.275 to 1.287)", "73.4% (69.5 to 77.3)", "0.02 (−0.05 to 0.09)"):
        assert said in read(page)


def test_summary_says_how_many_rounds_do_not_count_and_of_which_clock_its_milliseconds_are(release: Release) -> None:
    gone = tuple(f"round {at}: it took too long" for at in range(477))
    disturbed = replace(release, bench=replace(release.bench, rounds=776, discarded=gone, timed_by=CPU))
    for render in (render_html, render_markdown):
        top = read(render(disturbed))[:12000]
        assert "477 of 776 rounds discarded" in top and "Latency, p50 of CPU time" in top
        assert "of CPU time" not in read(render(release))


def test_margin_that_a_measured_set_must_have_is_told(release: Release) -> None:
    asked = replace(plans.plan(), target_percent=20.0)
    told = dict(plan_rows(asked))["Saving, lower bound"]
    assert told.startswith("21.3% of 20.0% required: the lower bound of the measurement minus half its interval, 0.31%")
    assert (
        "the lower bound of the prediction"
        in dict(plan_rows(replace(asked, measured_percent=None)))["Saving, lower bound"]
    )
    assert "Saving, lower bound" not in dict(plan_rows(replace(asked, target_percent=None)))
    assert "minus half its interval" in read(render_html(release))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -3.0, 1e12])
def test_numbers_that_cannot_be_are_no_reason_to_fail(release: Release, value: float) -> None:
    odd = replace(releases.around(value, 0.1), low=value)
    figures = tuple(replace(one, p50_ms=odd, p90_ms=odd, p99_ms=odd) for one in release.bench.engines)
    points = tuple(
        replace(point, reduction_percent=odd, agreement_percent=odd, loss=releases.loss(odd))
        for point in release.frontier.points
    )
    sets = tuple(replace(one, predicted_percent=value, measured_percent=odd) for one in release.latency.sets)
    links = tuple(replace(link, cosine=value, max_abs=value) for link in release.verification.links)
    lost = replace(release.verification.loss, points=odd, agreement_percent=odd)
    broken = replace(
        release,
        speedup=odd,
        bench=replace(release.bench, engines=figures, speedup=odd, session_percent=value),
        frontier=replace(release.frontier, points=points),
        latency=replace(release.latency, sets=sets, additivity=odd, baseline_ms=odd),
        verification=replace(release.verification, links=links, loss=lost),
        recoverability=tuple(replace(one, relative=value) for one in release.recoverability),
        plan=replace(
            release.plan,
            set_frequency=value,
            selection_frequency=dict.fromkeys(release.plan.selection_frequency, value),
            considered=tuple(
                replace(one, predicted_error=value, verified_error=value, predicted_percent=odd, loss=lost)
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
    assert read(render_html(away)).count("– (the device of the table is not available here)") == 3


def test_sets_that_were_considered_are_told_with_why_they_were_not_taken(release: Release, page: str) -> None:
    for text in (page, render_markdown(release)):
        assert "Sets that were considered" in text
        assert "0.0247" in text and "too dear" in text and "taken" in text
        assert "In resamples, %" in text
        assert "71.0% of the resamples; its least stable block, layer2.3, in 76.0%" in text


def test_chain_is_drawn_step_by_step(page: str) -> None:
    chain = page[page.index('<ol class="chain">') : page.index("</ol>")]
    assert [*re.findall(r"<strong>(\w+)</strong>", chain)] == ["teacher", "student", "ONNX", "engine"]
    assert chain.count("same top-1 class") == 3
    assert "Directly, teacher to engine: 91.4% (88.3 to 91.4) same top-1 class" in page


@pytest.mark.parametrize(("most_points", "said"), [(1.0, "Not proven"), (0.5, "Broken")])
def test_gate_says_what_failed_and_what_would_pass(release: Release, most_points: float, said: str) -> None:
    failed = replace(release, gate=releases.gate(most_points))
    for text in (render_html(failed), render_markdown(failed)):
        assert f"{said}: accuracy lost." in text and "All requirements are met." not in text
        assert f"at most {most_points:g} point" in text and "0.6 points (−0.2 to 1.4)" in text
        assert "The nearest set that passes: without layer1.1, layer1.2 (closed form)" in text
        assert "2,000 would decide it" in text


def test_gate_tells_every_answer(release: Release) -> None:
    kept, open_, broken = (releases.gate(most).constraints for most in (1.5, 1.0, 0.5))
    gates = {
        "All requirements are met.": kept,
        "Not proven: accuracy lost.": open_,
        "Broken: accuracy lost.": broken,
        "Broken: speed-up. Not proven: accuracy lost.": (replace(open_[0], answer=Answer.BROKEN), open_[1]),
        "Broken: speed-up, accuracy lost.": (replace(broken[0], answer=Answer.BROKEN), broken[1]),
    }
    for said, constraints in gates.items():
        assert outcome(replace(releases.gate(), constraints=constraints)) == said
        page = render_html(replace(release, gate=replace(releases.gate(), constraints=constraints)))
        assert said in page
        assert [row[3] for row in demands(replace(releases.gate(), constraints=constraints)).rows] == [
            one.answer.value for one in constraints
        ]


def test_demand_by_default_and_a_loss_that_is_an_estimate_are_named_so() -> None:
    lost = releases.gate(1.0).constraints[-1]
    (_, asked, found, answer, _), (_, by_default, guessed, *_), (*_, unknown, _, _) = demands(
        replace(
            releases.gate(1.0),
            constraints=(
                lost,
                replace(lost, by_default=True, estimated=True),
                replace(lost, measured=None, answer=Answer.NOT_PROVEN),
            ),
        )
    ).rows
    assert (asked, found, answer) == ("at most 1 point", "0.6 points (−0.2 to 1.4)", "not proven")
    assert (by_default, guessed) == ("at most 1 point, the default", "0.6 points (−0.2 to 1.4), estimated")
    assert unknown == "– (unknown)"


@pytest.mark.parametrize(
    ("answer", "code", "said", "look"),
    [
        (Answer.KEPT, 0, "Promise kept (exit code 0)", "kept"),
        (Answer.NOT_PROVEN, 0, "Promise not proven (exit code 0)", "not-proven"),
        (Answer.NOT_PROVEN, 1, "Promise not proven (exit code 1)", "not-proven"),
        (Answer.BROKEN, 1, "Promise broken (exit code 1)", "broken"),
    ],
)
def test_promise_has_a_look_of_its_own_for_every_answer(
    release: Release, answer: Answer, code: int, said: str, look: str
) -> None:
    told = replace(release, verdict=replace(release.verdict, answer=answer, exit_code=code))
    page = render_html(told)
    assert f'<span class="verdict {look}">{said}</span>' in page
    assert f".verdict.{look} {{" in page
    assert f"{said}." in render_markdown(told)


def test_loss_without_labels_is_an_estimate_wherever_it_is_told() -> None:
    page = read(render_html(releases.unlabelled()))
    for said in (
        "Accuracy lost, estimated",
        "no labels; the original&#39;s answer on 91.4%",
        "0.6 points (−0.2 to 1.4), estimated",
        "The images have no labels, so the loss of accuracy is an estimate",
        "Accuracy lost is estimated without labels.",
    ):
        assert said in page, said
    assert "Top-1 accuracy" not in page and "paired by image" not in page


def test_loss_of_labelled_images_is_told_beside_the_accuracies(release: Release, page: str) -> None:
    figure = quality(release)
    assert figure.title == "Top-1 accuracy" and figure.text == "73.4% (69.5 to 77.3) → 72.8% (68.9 to 76.7)"
    assert figure.detail.endswith("; lost 0.6 points (−0.2 to 1.4)")
    assert "estimated" not in page and "no labels" not in read(page)


def test_sets_tell_what_they_lost_before_finetuning(release: Release, page: str) -> None:
    assert "Accuracy lost before finetuning" in page
    assert "1.5 points (0.4 to 2.6)" in read(page) and "1.7 points (0.6 to 2.8)" in read(page)
    facts = dict(plan_rows(release.plan))
    assert facts["Accuracy lost before finetuning"].startswith(
        "1.5 points (0.4 to 2.6); the original's answer on 91.4%"
    )
    assert facts["Accuracy lost before finetuning"].endswith("of 125 images not used in the fit")
    sets = (
        replace(release.plan.considered[0], loss=None),
        replace(release.plan.considered[1], loss=None, verified_error=None),
    )
    unknown = replace(release.plan, considered=sets)
    lost = tables.considered(unknown).head.index("Accuracy lost before finetuning")
    assert [row[lost] for row in tables.considered(unknown).rows] == [
        "– (no answers to the task)", "– (not verified)",
    ]  # fmt: skip
    assert "Accuracy lost before finetuning" not in dict(plan_rows(unknown))


def test_smaller_set_than_asked_is_told_with_why(release: Release) -> None:
    asked = replace(release.plan.considered[1], loss=releases.loss(releases.around(9.7, 1.2)))
    within = WithinDrop(demand_points=2.0, target_set=asked, sets=(), best=release.plan.considered[0])
    reduced = replace(release, plan=replace(release.plan, target_percent=None, within_drop=within, notes=("so much",)))
    for text in (render_html(reduced), render_markdown(reduced)):
        assert "Taken instead" in text and "so much" in text
        assert "the most that --max-drop 2 allows; the target would cost 9.7 points (8.5 to 10.9)" in read(text)
    assert "Taken instead" not in render_html(release)


def test_estimator_and_sessions_are_told(release: Release, page: str) -> None:
    assert "The estimator is the median: between sessions of one file, its error is 0.15%" in page
    assert "4 of each network" in page
    other = replace(release, bench=replace(release.bench, estimator="least", session_percent=float("nan")))
    assert "its error is 0.22%, the least of those tried is 0.15%" in render_html(other)
    assert "– (no network was opened twice)" in render_html(other)
    assert "0.38% (standard deviation)" in page


def test_readings_of_the_machine_say_what_they_mean(page: str) -> None:
    for said in ("0.800%", "3 stops", "2,390 to 3,412 MHz", "time that the hypervisor gave to other guests"):
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
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {4, 5, 8, 10}


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


def test_points_that_were_lost_say_whether_they_are_estimated_and_why_they_are_absent() -> None:
    found = releases.loss(releases.around(0.6, 0.8))
    assert points_lost(found) == "0.6 points (−0.2 to 1.4)"
    assert points_lost(replace(found, estimated=True)) == "0.6 points (−0.2 to 1.4), estimated"
    assert points_lost(None) == "– (no answers to the task)"
    assert points_lost(None, absent="not verified") == "– (not verified)"


def test_counts_and_durations_are_short() -> None:
    assert (count(25_557_032), count(896)) == ("25.6 M", "896")
    assert duration(3700) == "1 h 1 min"
    assert duration(61.2) == "1 min 1 s"
    assert (duration(8.2e-7), duration(0.039)) == ("0 s", "0.039 s")


def test_report_needs_no_torch() -> None:
    code = "import sys, practise_deploy.report as r; sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_terminal_would_obey_is_in_neither_page(release: Release) -> None:
    """Colours, titles of windows, and marks that turn text around, from a foreign name."""
    marks = "\x1b\x07\x9b\u202e\u2066\r"
    odd = replace(release, network=replace(release.network, name=f"net{marks}work"), command=f"build {marks}")
    for page in (render_html(odd), render_markdown(odd), render_runs_html({f"run{marks}": odd})):
        assert "network" in page and not set(marks) & set(page)
