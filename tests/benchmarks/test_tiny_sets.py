"""The grid of the comparison at equal latency: units, claims, figures, surgery and losses, on tiny networks."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import networks
from benchmarks.reproduce.tiny import grid, summary
from benchmarks.reproduce.tiny.grid import GRIDS, METHODS, SCORES, Part, Unit, units_of
from benchmarks.reproduce.tiny.lessons import distillation
from benchmarks.reproduce.tiny.listing import listed
from benchmarks.reproduce.tiny.provenance import commit
from benchmarks.reproduce.tiny.shelf import Shelf, packed, unpacked
from benchmarks.tables.tiny import point_table, room
from practise_deploy.network.tracing.trace import trace

UNIT = Unit(network="resnet20", reduction=22, images=50, method="random", seed=0, steps=10)


def small() -> list[Unit]:
    return units_of("small")


def record(unit: Unit, correct: np.ndarray | None = None, **more: object) -> dict:
    correct = np.ones(8, dtype=bool) if correct is None else correct
    counted = {"correct": int(correct.sum()), "images": len(correct)}
    reduction = {"estimate": 22.0, "low": 21.0, "high": 23.0, "confidence": 0.95}
    return {
        "schema": grid.SCHEMA, "unit": unit.record(), "budget_met_at": grid.MET_AT, "precision": "fp32", "seconds": 36.0,
        "dropped": ["layer1.1"], "predicted_percent": reduction, "measured_percent": None,
        "teacher": {"correct": 8, "images": 8}, "student": {**counted, "bits": packed(correct)},
    } | more  # fmt: skip


def test_small_grid_holds_what_was_announced():
    counts = {name: sum(u.network == name and u.method != SCORES for u in small()) for name in ("resnet20", "resnet56")}
    assert counts == {"resnet20": 2 * 5 * len(METHODS), "resnet56": 2 * 2 * 3 * len(METHODS)}
    assert {u.steps for u in small() if u.network == "resnet56" and u.method != SCORES} == {400}


def test_every_unit_of_every_grid_has_a_file_of_its_own():
    for name in GRIDS:
        names = [unit.name for unit in units_of(name)]
        assert len(names) == len(set(names))


def test_scores_come_before_the_units_that_need_them_and_are_shared_by_reductions():
    units = units_of("small", networks=["resnet56"], seeds=[0], images=[50])
    needing = [unit for unit in units if unit.scores is not None]
    assert all(units.index(unit.scores) < units.index(unit) for unit in needing)
    assert len({unit.scores for unit in needing}) == 1
    assert len({unit.reduction for unit in needing}) == 2


def test_filtering_by_method_keeps_the_scores_that_it_needs():
    assert {unit.method for unit in units_of("small", methods=["kd"])} == {"kd", SCORES}
    assert {unit.method for unit in units_of("small", methods=["random"])} == {"random"}


def test_methods_of_one_part_can_be_fewer():
    part = Part(network="n", reductions=(1,), images=(2,), seeds=1, steps=3, score_steps=4, methods=("random",))
    assert [unit.method for unit in part.units()] == ["random"]


def test_budget_rule_is_part_of_a_units_file_so_that_two_rules_never_mix(monkeypatch):
    names = set()
    for rule in ("low", "estimate"):
        monkeypatch.setattr(grid, "MET_AT", rule)
        names.add(UNIT.name)
    assert len(names) == 2


def test_unit_that_is_done_is_not_computed_again(tmp_path):
    shelf, calls = Shelf(tmp_path / "units", tmp_path / "locks"), []

    def compute(unit: Unit) -> dict:
        calls.append(unit)
        return record(unit)

    assert shelf.get(UNIT, compute) == shelf.get(UNIT, compute) == record(UNIT)
    assert calls == [UNIT]
    assert [path.suffix for path in (tmp_path / "units").rglob("*") if path.is_file()] == [".json"]


def test_unit_whose_computation_fails_stays_missing_and_free(tmp_path):
    shelf = Shelf(tmp_path / "units", tmp_path / "locks")

    def fail(unit: Unit) -> dict:
        raise ValueError(unit.name)

    with pytest.raises(ValueError):
        shelf.get(UNIT, fail)
    assert not shelf.done(UNIT)
    assert shelf.get(UNIT, record) is not None


def test_unit_that_another_process_holds_is_left_to_it(tmp_path):
    first, second = (Shelf(tmp_path / "units", tmp_path / "locks") for _ in range(2))
    with first.claimed(UNIT) as mine:
        assert mine
        assert second.get(UNIT, record) is None
        assert second.get(replace(UNIT, seed=1), record) is not None


def test_unit_of_another_schema_counts_as_missing(tmp_path):
    shelf = Shelf(tmp_path / "units", tmp_path / "locks")
    shelf.write(UNIT, record(UNIT, schema=0))
    assert not shelf.done(UNIT)


def test_list_says_what_is_missing_and_how_long_it_takes(tmp_path):
    shelf, other = Shelf(tmp_path / "units", tmp_path / "locks"), replace(UNIT, seed=1)
    shelf.write(UNIT, record(UNIT))
    told = listed([UNIT, other], shelf)
    assert f"missing {other.name}" in told
    assert "1 of 2 done" in told
    assert "0.0 h" in told


def test_packed_answers_come_back():
    correct = np.random.default_rng(0).random(6001) < 0.9
    assert (unpacked(packed(correct), 6001) == correct).all()


def test_paired_difference_is_over_shared_seeds_and_images():
    ours = {0: np.array([1, 1, 1, 1], bool), 1: np.array([1, 1, 1, 0], bool), 2: np.array([0, 0, 0, 0], bool)}
    theirs = {0: np.array([1, 1, 0, 0], bool), 1: np.array([1, 1, 0, 0], bool)}
    found = summary.paired(ours, theirs)
    assert found["seeds"] == [0, 1]
    assert found["estimate"] == pytest.approx((50 + 25) / 2)
    over_seeds = 12.706 * np.std([50, 25], ddof=1) / np.sqrt(2)
    over_images = 1.96 * np.std([0, 0, 100, 50], ddof=1) / np.sqrt(4)
    assert found["high"] - found["estimate"] == pytest.approx(np.hypot(over_seeds, over_images))


def test_one_seed_gives_no_interval_and_none_gives_no_difference():
    one = {0: np.array([1, 0], bool)}
    assert summary.paired(one, one) == {"seeds": [0], "estimate": 0.0, "low": None, "high": None}
    assert summary.paired({}, one) is None


def test_interval_of_equal_methods_covers_zero_at_the_stated_rate():
    draw, covered = np.random.default_rng(1), 0
    for _ in range(300):
        level = draw.normal(0.85, 0.02, (2, 5))  # a tiny set's own luck, independent of the other method's
        answers = [{s: draw.random(400) < level[m, s] for s in range(5)} for m in range(2)]
        found = summary.paired(*answers)
        covered += found["low"] <= 0 <= found["high"]
    assert covered >= 0.93 * 300


def test_summary_names_missing_units_and_gives_no_figure_that_needs_them():
    units = [
        Unit(network="resnet20", reduction=22, images=50, method=method, seed=seed, steps=10)
        for method in ("ours", "paper", "filters-mir")
        for seed in (0, 1)
    ]
    found = {unit: record(unit) for unit in units if unit.method != "ours"}
    made = summary.summary("small", units, found, {})
    assert made["missing"] == [unit.name for unit in units if unit.method == "ours"]
    assert made["figures"]["ours_minus_paper"][0]["estimate"] is None
    assert made["figures"]["ours_minus_paper_mean_at_50_images"]["estimate"] is None
    assert made["figures"]["ours_minus_best_filters_mean_at_22"] == {
        "points": 1, "estimate": None, "low": None, "high": None,
    }  # fmt: skip
    assert made["points"][0]["methods"]["ours"]["missing_seeds"] == [0, 1]
    json.dumps(made, allow_nan=False)


def test_summary_takes_the_best_filter_baseline_and_the_measured_reduction_where_there_is_one():
    half, most = np.array([1, 0] * 4, bool), np.array([1] * 7 + [0], bool)
    answers = {"ours": np.ones(8, bool), "paper": most, "filters-mir": half, "filters-kd": most}
    found = {}
    for method, correct in answers.items():
        unit = replace(UNIT, method=method)
        found[unit] = record(unit, correct)
    measured = {"estimate": 25.0, "low": 24.0, "high": 26.0}
    made = summary.summary("small", list(found), found, {("resnet20", frozenset({"layer1.1"})): measured})
    best = made["figures"]["ours_minus_best_filters_at_22"][0]
    assert (best["method"], best["estimate"]) == ("filters-kd", pytest.approx(12.5))
    assert made["figures"]["ours_minus_best_filters_mean_at_22"]["estimate"] == pytest.approx(12.5)
    point = made["points"][0]["methods"]["ours"]
    assert (point["reduction_percent"]["estimate"], point["reduction_measured"]) == (25.0, True)


def test_summary_tells_units_of_one_default_from_those_of_another():
    units = [replace(UNIT, method="ours", seed=seed) for seed in range(3)]
    ways = [{}, {"recovered_by": "300 steps, exits x10"}, {"recovered_by": "300 steps, exits x3"}]
    found = {unit: record(unit, **way) for unit, way in zip(units, ways, strict=True)}
    ours = summary.summary("small", units, found, {})["points"][0]["methods"]["ours"]
    assert ours["recovered_by"] == ["300 steps, exits x10", "300 steps, exits x3"]
    assert ours["recovery_unrecorded_seeds"] == [0]
    said = point_table(summary.summary("small", units, found, {})["points"][0])
    assert said.endswith(
        "`ours`: 300 steps, exits x10; or 300 steps, exits x3; or seed 0: made before this was recorded."
    )


def test_table_says_of_which_seeds_a_difference_is_where_the_means_are_of_others():
    units = [replace(UNIT, method=method, seed=seed) for method, seed in (("ours", 0), ("paper", 0), ("paper", 1))]
    found = {unit: record(unit) for unit in units}
    said = point_table(summary.summary("small", units, found, {})["points"][0])
    assert "| +0.00 (seed 0) |" in said


def test_mean_over_points_is_as_wide_as_if_they_all_erred_the_same_way():
    points = [{"estimate": at, "low": at - half, "high": at + half} for at, half in ((1.0, 0.5), (3.0, 1.5))]
    assert summary._mean(points) == {"points": 2, "estimate": 2.0, "low": 1.0, "high": 3.0}


def test_distillation_of_the_teacher_itself_is_a_tenth_of_the_cross_entropy():
    logits, labels = torch.randn(5, 10), torch.arange(5)
    expected = 0.1 * torch.nn.functional.cross_entropy(logits, labels)
    assert torch.isclose(distillation(logits, logits, labels), expected)


def test_distillation_weighs_the_softened_divergence_as_hinton_does():
    found, wanted, labels = torch.randn(5, 10), torch.randn(5, 10), torch.arange(5)
    soft, target = (found / 4).softmax(1), (wanted / 4).softmax(1)
    divergence = (target * (target / soft).log()).sum(1).mean()
    hard = torch.nn.functional.cross_entropy(found, labels)
    assert torch.isclose(distillation(found, wanted, labels), 0.9 * 16 * divergence + 0.1 * hard)


@pytest.fixture
def filters():
    pytest.importorskip("torch_pruning", reason="filter pruning needs the extra 'bench'")
    from benchmarks.reproduce.tiny import filters

    return filters


@pytest.mark.parametrize(
    ("make", "shape", "pattern"),
    [
        (networks.tiny_resnet, (1, 3, 16, 16), r"layer\d\.\d+\.conv1$"),
        (networks.tiny_mobilenet, (1, 3, 32, 32), r"features\.[3-7]\.conv\.0\.0$"),
    ],
)
def test_pruned_filters_are_as_if_their_outputs_were_silenced(filters, make, shape, pattern):
    teacher, _ = trace(make(), shape)
    inner = filters.inner_convolutions(teacher, pattern)
    widths = [max(8, teacher.get_submodule(name).out_channels // 2) for name in inner]
    pruned = filters.prune_filters(teacher, inner, widths, shape)
    assert [pruned.get_submodule(name).out_channels for name in inner] == widths
    x = torch.randn(2, *shape[1:])
    for name in inner:  # silence what was pruned, in the teacher: weights kept are told by their values
        readers = _readers(teacher, name)
        kept = _kept(teacher.get_submodule(name), pruned.get_submodule(name))
        gone = [channel for channel in range(teacher.get_submodule(name).out_channels) if channel not in kept]
        with torch.no_grad():
            readers.weight[:, gone] = 0
    assert torch.allclose(teacher(x), pruned(x), atol=1e-4)


def _kept(before: torch.nn.Conv2d, after: torch.nn.Conv2d) -> list[int]:
    old, new = before.weight.detach(), after.weight.detach()
    return [channel for channel in range(len(old)) if any(torch.equal(old[channel], each) for each in new)]


def _readers(network: torch.fx.GraphModule, name: str) -> torch.nn.Conv2d:
    """The next convolution after this one that is not depthwise: what reads the inner width."""
    convolutions = [
        network.get_submodule(str(node.target))
        for node in network.graph.nodes
        if node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), torch.nn.Conv2d)
    ]
    start = [each is network.get_submodule(name) for each in convolutions].index(True)
    return next(each for each in convolutions[start + 1 :] if each.groups == 1)


def test_results_name_the_code_that_made_them():
    assert commit() is None or re.fullmatch(r"[0-9a-f]{10,}\+?", commit())


def test_room_is_what_the_originals_are_above_the_best_filters_where_there_are_any_at_22_percent():
    def point(asked: int, original: float, **means: float) -> dict:
        methods = {name: {"mean": mean, "seeds": [0]} for name, mean in means.items()}
        return {"asked_percent": asked, "teacher_percent": original, "methods": methods}

    points = [
        point(22, 92.0, **{"ours": 91.0, "filters-mir": 90.0, "filters-kd": 88.0}),
        point(22, 80.0, **{"filters-kd": 76.0}), point(22, 80.0, ours=79.0), point(30, 92.0, **{"filters-mir": 50.0}),
    ]  # fmt: skip
    assert "are 3.00 points above" in room(points) and "mean of 2 points" in room(points)
    assert room(points[2:]) == ""
