"""The committed summaries are those of the committed runs, so that no table tells of runs that are gone."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.reproduce import ablation
from benchmarks.reproduce.tiny.grid import MET_AT
from benchmarks.reproduce.tiny.shelf import Shelf
from benchmarks.reproduce.tiny.summary import write_summary

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_summary_of_the_grid_is_that_of_its_units(tmp_path: Path):
    folder = tmp_path / "tiny_sets"
    folder.symlink_to(RESULTS / "tiny_sets")
    found = json.loads(write_summary("small", Shelf(folder, tmp_path / "locks")).read_text())
    assert found["done"] == len(list((RESULTS / "tiny_sets").glob("*/*.json")))
    assert found == json.loads((RESULTS / "tiny_sets.json").read_text()), "run tiny_sets.py summary"


def test_summary_of_the_ablation_is_that_of_its_runs():
    found = json.loads(ablation.summary())
    assert sum(row["seeds"] for row in found["rows"]) == len(list((RESULTS / "ablation").glob("*/*.json")))
    assert found == json.loads((RESULTS / "ablation" / "summary.json").read_text()), "run ablation.py --summary"


def test_pilot_is_of_the_grids_budget_and_its_best_rates_are_no_edge_of_what_it_tried():
    found = json.loads((RESULTS / "tiny_sets" / "pilot.json").read_text())
    assert found["budget_met_at"] == MET_AT
    for trial in found["images"].values():
        for loss, percent in trial["accuracy_percent"].items():
            best = max(percent, key=percent.__getitem__)
            assert float(best) == trial["best"][loss]
            assert best not in (next(iter(percent)), list(percent)[-1])
