"""The functions, on a device whose times are scripted: results, records, resuming, errors, silence."""

from __future__ import annotations

import json
from dataclasses import replace
from html import unescape
from itertools import product
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import practise_deploy as pd
from api.quick import SETTINGS
from networks import plain_network
from practise_deploy.api.session import process_wide
from practise_deploy.cli.running import run_stage
from practise_deploy.cli.stages import STAGES
from practise_deploy.embedded import digits
from practise_deploy.outcome import Answer
from practise_deploy.pipeline.results import read_release
from practise_deploy.progress import shows_bars
from samples import plans, releases


def loader_of(pixels: np.ndarray) -> DataLoader[Any]:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return DataLoader(TensorDataset(images, torch.arange(len(images)) % 10), batch_size=8, shuffle=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, module: nn.Module, pixels: np.ndarray) -> pd.Release:
    """A release of a module and of a shuffled loader."""
    folder = tmp_path_factory.mktemp("built") / "run"
    return pd.build(module, loader_of(pixels), out=folder, progress=False, **SETTINGS)


def test_release_has_the_new_network_its_file_and_its_report(built: pd.Release, module: nn.Module):
    images = torch.randn(3, 3, 16, 16)
    student = built.network
    assert student(images).shape == module.eval()(images).shape == (3, 10)
    assert not student.training and student is built.network
    assert len([*student.modules()]) < len([*module.modules()])
    assert onnx.load(built.onnx).graph.node and built.onnx.name == "model.onnx"
    assert "<html" in built.report.read_text(encoding="utf-8")
    assert built.speedup.low > 1 and 0 <= built.agreement.low <= built.agreement.high <= 100
    assert built.kept is built.verdict.kept and built.record.plan.dropped


def test_weights_of_the_torch_network_are_those_of_the_file(built: pd.Release):
    from onnxruntime import InferenceSession

    images = np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)
    session = InferenceSession(built.onnx, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})[:1]
    assert np.allclose(built.network(torch.from_numpy(images)).detach().numpy(), logits, atol=1e-4)


def test_same_call_goes_on_in_the_run_folder(built: pd.Release, module: nn.Module, pixels: np.ndarray):
    before = (built.folder / "steps" / "finetune.key.json").stat().st_mtime_ns
    again = pd.build(module.eval(), loader_of(pixels), out=built.folder, progress=False, **SETTINGS)
    assert again.record.verdict == built.record.verdict
    assert (built.folder / "steps" / "finetune.key.json").stat().st_mtime_ns == before
    assert repr(again) == repr(built)


def test_record_says_that_no_command_line_rebuilds_it(built: pd.Release):
    command = read_release(built.folder).command
    assert command.startswith("practise_deploy.build(network, images, ") and "drop=1" in command
    assert command.endswith("# network: TinyResNet; images: DataLoader")
    assert "no command line" in built.report.read_text(encoding="utf-8")
    assert "no command line" in (built.folder / "report.md").read_text(encoding="utf-8")
    assert json.loads((built.folder / "settings.json").read_text())["network"] == "python:TinyResNet"
    common = {"network": None, "config": None, "json": False, "quiet": True, "explain": False, "fresh": False}
    stage = next(stage for stage in STAGES if stage.name == "plan")
    with pytest.raises(pd.InputError, match="python:TinyResNet was an object in Python"):
        run_stage(stage, common, {"out": built.folder}, {})


def test_names_and_paths_have_the_command_line_that_rebuilds_them(tmp_path: Path, pixels: np.ndarray):
    nets = tmp_path / "nets.py"
    nets.write_text("from networks import tiny_resnet\n")
    np.savez(tmp_path / "tiny.npz", images=pixels)
    pd.plan(f"{nets}:tiny_resnet", tmp_path / "tiny.npz", out="run", progress=False, **SETTINGS)
    kept = json.loads(Path("run/settings.json").read_text())
    assert kept["network"] == f"{nets}:tiny_resnet" and kept["data"] == str(tmp_path / "tiny.npz")


def test_run_folder_of_a_module_has_the_name_of_its_class(module: nn.Module):
    table = pd.measure_latency(module, input_size=16, progress=False, measure_budget_s=0.3)
    assert Path("runs/TinyResNet/latency.json").is_file() and len(table.savings) == 7
    assert table.baseline_ms.estimate > 0


def test_inspection_measures_and_writes_nothing(module: nn.Module):
    inspection = pd.inspect(module, input_size=16, progress=False)
    assert [block.name for block in inspection.blocks if not block.droppable] == ["layer2.0", "layer3.0"]
    assert not list(Path.cwd().iterdir())


def test_embedded_network_comes_with_its_images():
    assert pd.inspect("digits", progress=False).network.preprocessing.size == (28, 28)
    with pytest.raises(pd.InputError, match="DigitsNetwork is given no images"):
        pd.plan(digits.make_digits_network(), progress=False)


def test_module_without_a_droppable_block_is_refused_before_anything_is_written(pixels: np.ndarray):
    with pytest.raises(pd.NoDroppableBlock):
        pd.build(plain_network(), pixels, progress=False)
    assert not list(Path.cwd().iterdir())


def test_refusal_tells_message_and_remedy_and_writes_nothing(module: nn.Module, pixels: np.ndarray):
    with pytest.raises(pd.InputError) as refused:
        pd.build(module, pixels[:9], progress=False)
    assert str(refused.value).startswith("images (ndarray) gives 5 images to fit")
    assert "\nRemedy: add images" in str(refused.value)
    assert not list(Path.cwd().iterdir())


def test_target_out_of_reach_is_an_error_and_not_a_release(module: nn.Module, pixels: np.ndarray):
    with pytest.raises(pd.TargetOutOfReach) as refused:
        pd.plan(module, pixels, reduce=99, progress=False, **{**SETTINGS, "drop": None})
    assert "Remedy: " in str(refused.value)


def test_labelled_images_for_verification_may_be_objects_too(module: nn.Module, pixels: np.ndarray):
    held_out = (np.roll(pixels, 1, axis=1), np.arange(40) % 10)
    plan = pd.plan(module, pixels, eval=held_out, progress=False, **SETTINGS)
    assert len(plan.dropped) == 1 and len(plan.recoverability) == 7
    with pytest.raises(pd.InputError, match=r"eval \(ndarray\) has no labels"):
        pd.plan(module, pixels, eval=pixels, progress=False, **SETTINGS)


def test_progress_is_on_stderr_or_nowhere(module: nn.Module, capfd: pytest.CaptureFixture[str]):
    pd.inspect(module, input_size=16)
    out, err = capfd.readouterr()
    assert out == "" and "Tracing the network" in err
    pd.measure_latency(module, input_size=16, progress=False, measure_budget_s=0.3)
    assert capfd.readouterr() == ("", "")


def test_settings_of_torch_are_as_they_were(module: nn.Module):
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    pd.measure_latency(module, input_size=16, progress=False, measure_budget_s=0.3)
    assert torch.equal(torch.rand(2), expected) and torch.get_num_threads() == threads


# Comparing


def test_release_is_compared_with_the_module_that_it_is_of(built: pd.Release, module: nn.Module):
    quick = {"measure_budget_s": 0.3, "sessions": 2, "footprint": False, "progress": False}
    comparison = pd.compare(module, built, input_size=16, **quick)
    assert comparison.speedup.low > 1 and comparison.kept and comparison.verdict == "faster"
    assert "a: TinyResNet was exported to ONNX for this, for inputs of 1x3x16x16" in comparison.notes
    same = pd.compare(built.onnx, built.folder, min_speedup=1.1, **quick)
    assert not same.kept and "failed: " in repr(same)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_size": 16}, "input_size says nothing about files"),
        ({"threads": 0}, "threads: 0 is not 1 or more"),
        ({"footprint": "no"}, "footprint: 'no' is neither true nor false"),
        ({"shape": {"x": (0, 3)}}, "shape: 'x=0x3' does not read like"),
    ],
)
def test_settings_of_a_comparison_are_checked(built: pd.Release, settings: Any, message: str):
    with pytest.raises(pd.InputError, match=message):
        pd.compare(built, built, progress=False, **settings)


def test_file_that_is_not_there_is_an_error(built: pd.Release):
    with pytest.raises(pd.InputError, match=r"no such file: nothing\.onnx"):
        pd.compare("nothing.onnx", built, progress=False)
    built.onnx.with_name("other").mkdir(exist_ok=True)
    with pytest.raises(pd.InputError, match=r"holds no model\.onnx"):
        pd.compare(built, built.onnx.with_name("other"), progress=False)


# Showing themselves


def test_release_is_one_line_and_a_table_in_a_notebook(built: pd.Release):
    broken = replace(built.record.verdict, answer=Answer.BROKEN, sentence="Broken: <b>slower</b>.", exit_code=1)
    release = replace(built, record=replace(built.record, verdict=broken))
    assert not release.kept and repr(release) == "TinyResNet: Broken: <b>slower</b>."
    html = release._repr_html_()
    assert "<strong>TinyResNet: Broken: &lt;b&gt;slower&lt;/b&gt;.</strong>" in html
    assert "<dt>Speed-up</dt>" in html and "<html" not in html and "--max-drop" not in html


def test_inspection_plan_and_table_show_what_the_command_line_prints(module: nn.Module, pixels: np.ndarray):
    plan = pd.plan(module, pixels, progress=False, **SETTINGS)
    assert repr(plan).startswith("To drop 1 block, drop layer") and "\n" not in repr(plan)
    assert "Candidates, by error per millisecond saved" in plan._repr_html_()
    inspection = pd.inspect(module, input_size=16, progress=False)
    assert repr(inspection) == "TinyResNet: 9 blocks, of which 7 can be dropped"
    reasons = [block.reason for block in inspection.blocks if not block.droppable]
    assert len(reasons) == 2 and all(reason in unescape(inspection._repr_html_()) for reason in reasons)


def test_records_that_show_themselves_are_the_records():
    from practise_deploy.api.results import LatencyTable, Plan, shown

    table, plan = plans.latency(), plans.plan()
    mine = shown(LatencyTable, table)
    assert isinstance(mine, type(table)) and mine.savings == table.savings
    assert "cost measurable time" in repr(mine) and "<caption>" in mine._repr_html_()
    planned = shown(Plan, plan, recoverability=plans.recoverability())
    assert planned.dropped == plan.dropped and "21.90% (21.59 to 22.21) measured" in repr(planned)


def test_comparison_shows_its_requirement():
    from practise_backends.results.requirement import require
    from practise_deploy.api.results import Comparison, shown

    comparison = releases.comparison()
    mine = shown(Comparison, comparison, requirement=require(comparison))
    assert repr(mine).startswith("Speed-up 1.281× (1.275 to 1.287), faster; passed: ") and "p50" in mine._repr_html_()


# The process


def test_calls_of_several_threads_wait_for_each_other():
    order = list[str]()

    def second() -> None:
        with process_wide(0):
            order.append("second")

    waiting = Thread(target=second)
    with process_wide(0):
        waiting.start()
        waiting.join(0.05)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize(("terminal", "notebook", "widgets"), product([True, False], repeat=3))
def test_bars_move_in_a_terminal_and_in_a_notebook_with_widgets(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, notebook: bool, widgets: bool
):
    monkeypatch.setattr("practise_deploy.progress.find_spec", lambda name: object() if widgets else None)
    console = SimpleNamespace(is_terminal=terminal, is_jupyter=notebook)
    assert shows_bars(console) is (terminal or (notebook and widgets))
