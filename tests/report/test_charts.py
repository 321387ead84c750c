"""The pictures of a report hold what the records say, stay in their frames, and can be read by everyone."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from practise_deploy.outcome import Release
from practise_deploy.report import render_html
from practise_deploy.report.charts.axes import Axis, spanned
from practise_deploy.report.charts.chart import Chart
from practise_deploy.report.charts.distributions import STEPS, distributions
from practise_deploy.report.charts.drawing import NARROW, WIDE, Frame, draw
from practise_deploy.report.charts.frontier import frontier, frontier_table, neighbours
from practise_deploy.report.charts.labels import Named, box_of, placed
from practise_deploy.report.charts.predictions import predicted
from practise_deploy.report.charts.rounds import POINTS, rounds, rounds_table
from practise_deploy.report.charts.saving_vs_error import absent, saving_vs_error
from practise_deploy.report.charts.shares import shares
from samples import plans, releases

CHARTS: dict[str, Callable[[Release], Chart | None]] = {
    "saving-vs-error": saving_vs_error,
    "shares": shares,
    "predicted": predicted,
    "frontier": frontier,
    "distributions": lambda release: distributions(release.bench),
    "rounds": lambda release: rounds(release.bench),
}
STYLE = Path(__file__).parents[2] / "practise_deploy" / "report" / "style.css.j2"
ON_PAPER = (("ink", 4.5), ("soft", 4.5), ("accent", 4.5), ("old", 4.5), ("bad", 4.5))


@pytest.fixture(scope="module")
def release() -> Release:
    return releases.release()


def drawn(release: Release, name: str) -> Chart:
    chart = CHARTS[name](release)
    assert chart is not None
    return chart


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("frame", [WIDE, NARROW], ids=lambda frame: frame.name)
def test_drawing_stays_in_its_frame(release: Release, name: str, frame: Frame) -> None:
    drawing = draw(drawn(release, name), frame)
    for shape in (*drawing.curves, *drawing.marks):
        first = re.match(r"M([\d.]+) ([\d.]+)", shape.path)
        assert first is not None, shape.path
        x, y = float(first[1]), float(first[2])
        assert 0 <= x <= frame.width and 0 <= y <= frame.height
    for mark in drawing.marks:
        if mark.label:
            half = 3.5 * len(mark.label.text)
            assert frame.left <= mark.label.x - half and mark.label.x + half <= frame.width
    assert 3 <= len(drawing.x_ticks) <= 12 and 3 <= len(drawing.y_ticks) <= 12


@pytest.mark.parametrize("name", CHARTS)
def test_every_look_of_a_chart_is_in_its_key(release: Release, name: str) -> None:
    chart = drawn(release, name)
    told = {(key.tone, key.shape) for key in chart.keys}
    curves = {(curve.tone, curve.kind) for curve in chart.curves if curve.kind not in ("line", "arrows")}
    marks = {(mark.tone, mark.shape) for mark in chart.marks} if name != "distributions" else set()
    assert curves | marks <= told


def test_saving_vs_error_leaves_out_what_it_cannot_place(release: Release) -> None:
    chart = drawn(release, "saving-vs-error")
    assert absent(release) == ("layer4.2",)
    assert {mark.name for mark in chart.marks if mark.tone == "new"} == set(plans.DROPPED)


def test_bargain_without_spread_is_drawn(release: Release) -> None:
    flat = replace(release.latency.savings[0], saving_ms=releases.around(0.0, 0.0))
    alone = replace(release, latency=replace(release.latency, savings=(flat,)))
    assert 'id="saving-vs-error"' in render_html(alone)


def test_shares_place_every_candidate_by_rank_and_share(release: Release) -> None:
    chart = drawn(release, "shares")
    placed = {mark.name: (mark.x, mark.y) for mark in chart.marks}
    ranked = list(release.plan.scores)
    assert set(placed) == set(ranked)
    assert placed["layer2.3"] == (ranked.index("layer2.3") + 1, 76.0)
    assert {mark.name for mark in chart.marks if mark.shape == "dot"} == set(plans.DROPPED)


def test_shares_are_not_drawn_where_blocks_were_ranked(release: Release) -> None:
    ranked = replace(release, plan=replace(release.plan, selection_frequency={}, set_frequency=None, considered=()))
    assert shares(ranked) is None
    page = render_html(ranked)
    assert "Blocks were dropped in the order of their scores" in page and "Sets that were considered" not in page
    assert "In resamples" not in page and "the lowest goes first." in page


def test_frontier_neighbours_go_by_what_they_save(release: Release) -> None:
    """Sets of equal size may save more or less."""
    points = [replace(point, dropped=plans.NAMES[:4]) for point in release.frontier.points[:6]]
    points = [replace(point, chosen=at == 2) for at, point in enumerate(points)]
    turned = replace(release, frontier=replace(release.frontier, points=tuple(points[::-1])))
    told = neighbours(turned)
    assert [line.split(":")[0] for line in told] == ["4 blocks dropped", "The chosen set", "4 blocks dropped"]
    assert "saves 11.70%" in told[0] and "saves 21.90%" in told[2]


def test_frontier_begins_at_the_original_and_marks_the_chosen_set(release: Release) -> None:
    chart = drawn(release, "frontier")
    first = chart.curves[0].points
    assert first[0] == (0.0, 73.4) and len(first) == 7
    assert [mark.tooltip for mark in chart.marks if "the chosen set" in mark.tooltip and mark.shape == "dot"]
    assert [mark.name for mark in chart.marks if mark.shape == "diamond"] == ["the release"]
    assert neighbours(release)[0] == "3 blocks dropped: saves 16.80% (16.50 to 17.10); lost 1.4 points (0.3 to 2.5)."


def test_frontier_without_labels_shows_agreement_and_tells_the_estimated_losses() -> None:
    bare = releases.unlabelled()
    chart = drawn(bare, "frontier")
    assert chart.curves[0].points[0] == (0.0, 100.0)
    assert "agreement with the original" in chart.y.title
    assert neighbours(bare)[0].endswith("; lost 1.4 points (0.3 to 2.5), estimated.")
    table = frontier_table(bare)
    assert "Top-1 accuracy" not in table.head and "estimated without labels" in table.note
    at = table.head.index("Accuracy lost")
    assert [row[at] for row in table.rows if row[0] == "3 blocks"] == ["1.4 points (0.3 to 2.5), estimated"]


def test_frontier_of_labelled_images_tells_losses_that_are_no_estimates(release: Release) -> None:
    table = frontier_table(release)
    at = table.head.index("Accuracy lost")
    assert [row[at] for row in table.rows if row[0] == "3 blocks"] == ["1.4 points (0.3 to 2.5)"]
    assert "paired by image" in table.note and "estimated" not in render_html(release)


def test_frontier_of_what_is_no_classifier_tells_the_agreement_and_no_loss() -> None:
    whole = releases.unlabelled()
    points = tuple(replace(point, loss=None) for point in whole.frontier.points)
    features = replace(whole, frontier=replace(whole.frontier, points=points))
    assert "agrees on" in neighbours(features)[0]
    table = frontier_table(features)
    assert {row[table.head.index("Accuracy lost")] for row in table.rows} == {"– (no answers to the task)"}
    assert "estimated" not in table.note


def test_prediction_that_held_lies_on_the_line(release: Release) -> None:
    chart = drawn(release, "predicted")
    assert len(chart.marks) == 4 + 2 + 1
    final = next(mark for mark in chart.marks if mark.name == "the release")
    assert final.x == 22.5 and final.y == pytest.approx(21.94, abs=0.01)
    assert (chart.x.low, chart.x.high) == (chart.y.low, chart.y.high)


def test_distributions_are_thinned_and_rise_to_the_share_that_is_shown(release: Release) -> None:
    chart = drawn(release, "distributions")
    for curve in chart.curves:
        heights = [y for _, y in curve.points]
        assert len(curve.points) <= STEPS + 1
        assert heights == sorted(heights) and 95 < heights[-1] <= 100
        middle = min(curve.points, key=lambda point: abs(point[1] - 50))
        assert middle[0] == pytest.approx(31.4 if curve.tone == "old" else 24.5, rel=0.01)
    assert {mark.name for mark in chart.marks} == {"p50 31.4", "p90 32.5", "p50 24.5", "p90 25.6"}


def test_percentile_that_the_sample_supports_stays_in_the_picture(release: Release) -> None:
    slow = tuple(replace(one, p99_ms=releases.around(95.0, 4.0)) for one in release.bench.engines)
    chart = distributions(replace(release.bench, engines=slow))
    assert chart is not None and chart.x.log
    assert sum(mark.name == "p99 95.0" for mark in chart.marks) == 2


def test_rounds_mark_the_discarded_and_the_clipped(release: Release) -> None:
    samples = releases.samples(rounds=1000, sessions=1)
    samples["rounds_ms"][3] = 500.0
    chart = rounds(replace(release.bench, samples=samples))
    assert chart is not None
    kinds = {curve.kind: curve for curve in chart.curves}
    assert len(kinds["ticks"].points) == np.isnan(samples["rounds_ms"]).all(axis=1).sum()
    assert chart.y.high < 100 and "at the upper edge" in chart.note
    assert all(len(curve.points) <= POINTS for curve in chart.curves)
    assert "the median of 3 rounds in a row" in chart.note


def test_rounds_table_counts_every_round_once(release: Release) -> None:
    table = rounds_table(release.bench)
    assert table is not None and len(table.rows) == 10
    assert sum(int(row[-1]) for row in table.rows) == 5
    assert table.rows[-1][0].endswith("to 412")


@pytest.mark.parametrize(
    "samples",
    [
        {},
        {"rounds_ms": np.full((4, 2), np.nan), "engines": np.array(["original", "new"])},
        {"rounds_ms": np.ones((4, 3)), "engines": np.array(["original", "new"])},
    ],
    ids=["absent", "all discarded", "of another shape"],
)
def test_without_samples_there_is_no_picture_of_them(release: Release, samples: dict[str, np.ndarray]) -> None:
    bench = replace(release.bench, samples=samples)
    assert distributions(bench) is None and rounds(bench) is None and rounds_table(bench) is None
    assert "The raw samples are missing" in render_html(replace(release, bench=bench))


def test_constant_samples_are_drawn(release: Release) -> None:
    samples = {"rounds_ms": np.ones((3, 2)), "engines": np.array(["original", "new"])}
    assert 'id="rounds"' in render_html(replace(release, bench=replace(release.bench, samples=samples)))


@pytest.mark.parametrize(
    ("low", "high", "log"), [(0.0, 1.0, False), (3e-5, 4e4, True), (24.0, 80.0, True), (-5, 2e9, False)]
)
def test_ticks_are_few_round_and_within(low: float, high: float, log: bool) -> None:
    ticks = Axis(title="", low=low, high=high, log=log).ticks(6)
    assert 2 <= len(ticks) <= 14
    assert all(low <= value <= high for value, _ in ticks)


def test_span_of_one_value_has_a_width() -> None:
    for value in (0.0, 7.0):
        low, high = spanned([value])
        assert low < value < high


def test_names_cover_neither_marks_nor_each_other() -> None:
    wanted = [Named(name="block", x=100, y=100 + 2 * n, low=100, high=100) for n in range(30)]
    found = placed(wanted, [box_of(one.x, one.y) for one in wanted], (0, 0, 300, 300))
    spots = [(label.x, label.y) for label in found if label]
    assert 0 < len(spots) < 30 and len(set(spots)) == len(spots)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def themes() -> dict[str, dict[str, str]]:
    """The colours of each theme: the light one, and what the others change in it."""
    found = [
        {name: value if len(value) == 7 else "#" + "".join(2 * c for c in value[1:]) for name, value in pairs}
        for pairs in (
            re.findall(r"--([\w-]+): (#\w+)", part) for part in re.findall(r":root \{.*?\}", STYLE.read_text(), re.S)
        )
    ]
    return {"light": found[0], "dark": found[0] | found[1], "print": found[0] | found[2]}


@pytest.mark.parametrize("theme", themes())
def test_colours_can_be_told_from_what_is_behind_them(theme: str) -> None:
    colours = themes()[theme]
    for name, least in ON_PAPER:
        assert contrast(colours[name], colours["paper"]) >= least, name
    for name, wash in (("good", "good-wash"), ("old", "doubt-wash"), ("bad", "bad-wash")):
        assert contrast(colours[name], colours[wash]) >= 4.5, name
    assert contrast(colours["ink"], colours["wash"]) >= 4.5
    assert len(colours) == 12
