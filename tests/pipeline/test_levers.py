"""Dropped blocks and precision measured together, and the build of the point that is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.scripted import device, make_build, write_inputs
from practise_backends.terms import Interval
from practise_deploy.api.results import Frontier, shown
from practise_deploy.errors import InputError, TargetOutOfReach
from practise_deploy.outcome import BuiltPoint, Release
from practise_deploy.pipeline.auto import AutoBuild
from practise_deploy.pipeline.levers import without_part
from practise_deploy.pipeline.results import read_release
from practise_deploy.report import render_html
from practise_deploy.report.summaries import release as summary_of
from practise_deploy.settings import read_settings

CONVOLUTIONS = 21  # of the original; every block has two, and takes 0.1 ms of each in fp32 and 0.05 ms in int8


@pytest.fixture(scope="module", autouse=True)
def _few_sets() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("practise_deploy.planning.levers.STEPS", 3)
        yield


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    networks, data = write_inputs(tmp_path_factory.mktemp("inputs"), count=60)
    return {"network": f"{networks}:tiny_resnet", "data": data, "precision": "auto"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]) -> AutoBuild:
    build = make_build(tmp_path_factory.mktemp("auto") / "run", **given, min_speedup=2.2, max_drop="none")
    with device():
        _ = build.chosen.release
    return build


def test_all_points_are_measured_against_the_original_in_fp32(built: AutoBuild):
    points = built.measured_levers.points
    assert (points[0].dropped, points[0].precision, points[0].speedup.estimate) == ((), "fp32", 1.0)
    assert {point.precision for point in points} == {"fp32", "int8"} and len(points) >= 6
    for point in points:
        left = CONVOLUTIONS - 2 * len(point.dropped)
        wanted = (0.5 + 0.1 * CONVOLUTIONS) / (0.5 + (0.05 if point.precision == "int8" else 0.1) * left)
        assert point.speedup.estimate == pytest.approx(wanted, rel=1e-6)
    assert points[0].loss and points[0].loss.points.estimate == pytest.approx(0.0, abs=1e-3)


def test_images_that_choose_are_neither_fitted_nor_held_out(built: AutoBuild):
    images = built.context.images.fit
    fit, judged = images.choice_split(0)
    assert (len(fit), len(judged)) == (built.measured_levers.fit_images, built.measured_levers.images)
    assert len(fit) and len(fit) + len(judged) <= len(images)
    pixels = {image.numpy().tobytes() for image in judged.pixels}
    assert not pixels & {image.numpy().tobytes() for image in (*fit.pixels, *built.context.images.held_out.pixels)}


def test_front_holds_what_nothing_else_beats(built: AutoBuild):
    points = built.measured_levers.points
    for point in points:
        better = [p for p in points if p.speedup.estimate > point.speedup.estimate and p.lost < point.lost]
        assert not (point.on_front and better)
    assert any(point.on_front for point in points)


def test_release_is_of_the_point_that_loses_least_at_the_speed(built: AutoBuild):
    release = built.chosen.release
    reaching = [p for p in built.measured_levers.points if p.speedup.low >= 2.2]
    taken = min(reaching, key=lambda p: (p.lost, -p.speedup.estimate))
    assert (release.plan.dropped, release.compiled.precision) == (taken.dropped, taken.precision)
    assert release.bench and release.bench.fp32 and release.speedup == release.bench.fp32.speedup
    assert release.speedup.estimate == pytest.approx(taken.speedup.estimate, rel=1e-6)
    assert "times as fast as the original in fp32 (95% interval" in release.verdict.sentence
    assert release.gate and release.gate.constraints[0].measured == release.speedup


def test_release_tells_every_lever(built: AutoBuild):
    release = read_release(built.context.run.folder)
    page = render_html(release)
    assert "Blocks and precision together" in page and "Precision alone" in page and "Dropped blocks alone" in page
    assert "chosen together with the precision" in page
    (latencies,) = [text for title, text in summary_of(release, Path()).rows if title.startswith("Latency")]
    assert latencies.startswith("2.600 ms")  # of the original in fp32
    assert any("Over the original in int8" in title for title, _ in summary_of(release, Path()).rows)
    assert release.levers and replace(release.levers, built=()) == built.measured_levers
    (point,) = release.levers.built  # a speed was asked, so its own loss decides nothing
    assert (point.dropped, point.loss) == (release.plan.dropped, release.verification.loss)
    assert "Points that were built" in page


def test_fastest_within_the_loss_may_be_the_precision_alone(tmp_path: Path, given: dict[str, Any], monkeypatch):
    """Where every set of blocks costs too much, the release drops none."""
    from practise_deploy.pipeline import auto as module

    measure = module.measure_levers

    def with_costly_blocks(*inputs: Any):
        found = measure(*inputs)
        return replace(found, points=tuple(_costing(point, 50.0 if point.dropped else 0.5) for point in found.points))

    def _costing(point: Any, points: float):
        return replace(point, loss=replace(point.loss, points=replace(point.loss.points, estimate=points)))

    monkeypatch.setattr(module, "measure_levers", with_costly_blocks)
    monkeypatch.setattr(with_costly_blocks, "__annotations__", measure.__annotations__)
    with_costly_blocks.__wrapped__ = measure  # type: ignore[attr-defined]
    with device():
        release: Release = make_build(tmp_path / "run", **given, max_drop=2.0).chosen.release
    assert release.plan.dropped == () and release.compiled.precision == "int8" and release.finetuned.steps == 0
    assert release.speedup and release.speedup.estimate == pytest.approx((0.5 + 2.1) / (0.5 + 1.05), rel=1e-6)
    assert "all of it by int8" in release.verdict.sentence


def test_slower_point_is_built_where_the_first_one_loses_too_much(tmp_path: Path, given: dict[str, Any], monkeypatch):
    """The first one is told to have lost 9 points; both are kept beside each other in the run folder, and in the report."""

    def built_point(build: AutoBuild) -> BuiltPoint:
        assert build.lever and build.verification.loss and build.number is not None
        ends = {"low": -1.0, "high": 1.0} if build.number else {"low": 8.0, "high": 10.0}
        lost = Interval(estimate=0.0 if build.number else 9.0, confidence=0.95, **ends)
        loss = replace(build.verification.loss, points=lost, above_chance=True)
        return BuiltPoint(dropped=build.lever.dropped, precision=build.lever.precision, loss=loss)

    monkeypatch.setattr(AutoBuild, "built_point", property(built_point))
    run, given = tmp_path / "run", {**given, "max_drop": 60.0}
    with device():
        first = make_build(run, **given)
        fastest = first.planned
        monkeypatch.setitem(first.context.settings.__dict__, "max_drop", 2.0)
        release = first.chosen.release
    assert release.levers and [len(each.dropped) for each in release.levers.built] == [
        len(fastest.plan.dropped),
        len(release.plan.dropped),
    ]
    assert release.speedup and release.speedup.estimate < fastest.lever.speedup.estimate  # type: ignore[union-attr]
    assert "a little too narrow" in render_html(read_release(run))
    assert first.context.run.decisions["finetune-int8-2"].startswith("computed")  # and not asked for again
    steps = {file.name for file in (run / "steps").glob("*.json")}
    assert {"finetune-int8.json", "finetune-int8-2.json", "latency-int8.json"} <= steps


def test_speed_that_no_point_reaches_is_refused_with_the_fastest(tmp_path: Path, given: dict[str, Any]):
    with (
        device(),
        pytest.raises(TargetOutOfReach, match="9 times as fast as the original in fp32: the fastest") as error,
    ):
        _ = make_build(tmp_path / "run", **given, min_speedup=9.0).chosen.release
    assert "--min-speedup" in error.value.remedy


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"reduce": 20}, "--reduce does not go with --precision auto"),
        ({"max_drop": "none"}, "to know when to stop"),
        ({"recipe": "paper"}, "--recipe paper does not go"),
        ({"best_within_drop": True}, "--best-within-drop does not go"),
        ({"latency_table": "t.json"}, "--latency-table does not go"),
    ],
)
def test_settings_that_do_not_go_with_it_are_refused(tmp_path: Path, given: dict[str, Any], more, words: str):
    with pytest.raises(InputError, match=words):
        make_build(tmp_path / "run", **given, **more)


def test_recipe_that_looks_for_no_sets_has_no_frontier(tmp_path: Path, given: dict[str, Any]):
    build = make_build(tmp_path / "run", **{**given, "precision": "fp32"}, recipe="paper")
    with device(), pytest.raises(InputError, match="looks for no sets"):
        _ = build.measured_levers


def test_stages_of_one_precision_ask_for_it(tmp_path: Path, given: dict[str, Any]):
    with device(), pytest.raises(InputError, match="--precision auto is for build and frontier"):
        _ = make_build(tmp_path / "run", **given).latency


def test_frontier_shows_itself(built: AutoBuild):
    measured = shown(Frontier, built.measured_levers, network=built.context.network.summary, max_drop=2.0)
    assert f"{len(measured.points)} points; the fastest within 2 points: " in repr(measured)
    html = measured._repr_html_()
    assert "Every point against the original in fp32" in html and "Precision alone within 2 points" in html


def test_target_of_one_precision_is_said_to_play_no_part():
    settings = read_settings({"network": "digits", "reduce": 20, "precision": "int8"})
    (note,) = without_part(settings)
    assert note.startswith("--reduce and --precision: of no part here")
    assert not without_part(read_settings({"network": "digits"}))
