"""Kits as they are written: whole or not at all, measured as they are, with the tool that measures them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from networks import tiny_resnet
from practise_backends.errors import EnvironmentProblem
from practise_backends.fake import FakeBackend, steady
from practise_backends.interfaces import MeasurementSetup
from practise_backends.options import Measuring, flags_of
from practise_backends.results.bundle import Dropped, Kit, measure_kit, read_kit
from practise_backends.results.table_design import Cut, design_of
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Artifact, Conditions, StoppingRule
from practise_deploy.deployment import wheel
from practise_deploy.deployment.block_latency import Variants
from practise_deploy.deployment.kit import WrittenKit, check_place, write_kit
from practise_deploy.deployment.kit_readme import kit_readme
from practise_deploy.deployment.target import measuring_of
from practise_deploy.deployment.wheel import device_wheel
from practise_deploy.errors import InputError
from practise_deploy.network.graph.onnx_graph import with_splices
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks
from practise_deploy.settings import read_settings

SHAPE = (1, 3, 16, 16)
Make = Callable[[Path], Callable[[Dropped], Path]]


@pytest.fixture(scope="module")
def made() -> tuple[Kit, Make]:
    """A kit of a tiny network before its networks are written, and what writes them."""
    traced, _ = trace(tiny_resnet(), SHAPE)
    blocks = droppable(find_blocks(traced, SHAPE))
    model = with_splices(traced, blocks, SHAPE)
    return blank([Cut(block=one.name, latency_class=one.latency_class) for one in blocks]), (
        lambda folder: Variants(model, blocks, folder).without
    )


def blank(cuts: list[Cut], **asked: Any) -> Kit:
    return Kit(
        network="tiny",
        structure_sha256="5a" * 32,
        input_shape=SHAPE,
        precision="fp32",
        weights="random",
        asked=Measuring(**asked),
        cuts=tuple(cuts),
        design=design_of(cuts, 0),
        networks=(),
        sha256={},
        plan="practise-deploy plan tiny",
        made_by="a test",
    )


@pytest.fixture(scope="module")
def written(made: tuple[Kit, Make], tmp_path_factory: pytest.TempPathFactory) -> tuple[WrittenKit, Path]:
    folder = tmp_path_factory.mktemp("kits") / "kit"
    return write_kit(made[0], folder, made[1]), folder


def test_kit_is_read_back_and_holds_nothing_else(written: tuple[WrittenKit, Path]):
    said, folder = written
    kit = read_kit(folder)
    assert (said.networks, said.blocks, said.backend) == (len(kit.networks), len(kit.cuts), "ort")
    inside = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert inside == {"README.md", "kit.json", wheel_name(folder).name, *kit.sha256}
    assert set(kit.sha256) == {"networks/weights.bin", *(one.file for one in kit.networks)}
    assert said.bytes == sum((folder / name).stat().st_size for name in inside)
    assert list(folder.parent.iterdir()) == [folder]


def wheel_name(folder: Path) -> Path:
    (found,) = folder.glob("*.whl")
    return found


def test_every_network_runs_and_differs_from_the_others_by_its_blocks(written: tuple[WrittenKit, Path]):
    kit, backend, conditions = read_kit(written[1]), OrtBackend(), Conditions()
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    without = kit.without(written[1])
    outputs = [
        backend.open(backend.compile(without(one.dropped), conditions), conditions).run({"input": x})["logits"]
        for one in kit.networks
    ]
    assert all(not np.allclose(output, outputs[0]) for output in outputs[1:])


def test_kit_is_measured_from_its_folder_alone(written: tuple[WrittenKit, Path]):
    def script(artifact: Artifact):
        content = onnx.load(artifact.content, load_external_data=False)
        return steady(0.5 * sum(node.op_type == "Conv" for node in content.graph.node))

    stopping_rule = StoppingRule(budget_s=1e6, warmup_s=0.0, min_rounds=20, max_rounds=20, keep_throttled=True)
    bench = MeasurementSetup(backend=FakeBackend(script=script), conditions=Conditions(), stopping_rule=stopping_rule)
    kit = read_kit(written[1])
    table = measure_kit(kit, written[1], bench)
    assert [saving.block for saving in table.savings] == [cut.block for cut in kit.cuts]
    assert all(saving.saving_ms.estimate == pytest.approx(1.0) for saving in table.savings)
    assert table.additivity is not None and table.additivity.estimate == pytest.approx(1.0)


def test_kit_takes_the_place_of_an_older_one(made: tuple[Kit, Make], tmp_path: Path):
    folder = tmp_path / "kit"
    folder.mkdir()
    write_kit(made[0], folder, made[1])
    (folder / "networks" / "variant0.onnx").unlink()
    write_kit(made[0], folder, made[1])
    assert read_kit(folder) and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("mine", ["latency.json", "photo.jpg", "kit.txt"])
def test_what_is_no_kit_is_not_written_over(mine: str, made: tuple[Kit, Make], tmp_path: Path):
    folder = tmp_path / "kit"
    folder.mkdir()
    (folder / mine).write_text("mine")
    with pytest.raises(InputError, match=f"holds {mine}, which is no part of a kit") as caught:
        write_kit(made[0], folder, made[1])
    assert "--kit" in caught.value.remedy and [path.name for path in folder.iterdir()] == [mine]
    with pytest.raises(InputError, match="is a file"):
        check_place(folder / mine)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, os.strerror(28)), EnvironmentProblem)],
)
def test_kit_that_was_not_finished_leaves_nothing_and_keeps_the_older(
    error: BaseException, raised: type[BaseException], made: tuple[Kit, Make], tmp_path: Path
):
    folder = tmp_path / "kit"
    write_kit(made[0], folder, made[1])
    before = (folder / "kit.json").read_bytes()

    def make(place: Path) -> Callable[[Dropped], Path]:
        made[1](place)
        raise error

    with pytest.raises(raised):
        write_kit(made[0], folder, make)
    assert list(tmp_path.iterdir()) == [folder] and (folder / "kit.json").read_bytes() == before


def test_kit_that_cannot_take_the_older_ones_place_leaves_it_there(
    made: tuple[Kit, Make], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "kit"
    write_kit(made[0], folder, made[1])
    (folder / "networks" / "variant0.onnx").write_bytes(b"older")
    replace = os.replace

    def refused(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(5, os.strerror(5))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(EnvironmentProblem, match="cannot write the kit"):
        write_kit(made[0], folder, made[1])
    assert list(tmp_path.iterdir()) == [folder]
    assert (folder / "networks" / "variant0.onnx").read_bytes() == b"older"


# What it says.


def test_page_says_the_one_command_and_the_way_home(written: tuple[WrittenKit, Path]):
    said, folder = written
    page = (folder / "README.md").read_text()
    assert f'pip install "./{wheel_name(folder).name}[ort]"\npractise-measure .' in page
    assert said.plan == "practise-deploy plan tiny --latency-table latency.json" and said.plan in page
    assert "Jetson" not in page and "  \n" not in page and " \n" not in page


def test_page_for_tensorrt_says_what_a_jetson_brings_along(made: tuple[Kit, Make]):
    page = kit_readme(blank(list(made[0].cuts), backend="trt"), "a.whl")
    assert 'pip install "./a.whl[trt]"' in page and "pip install --no-deps ./a.whl" in page


def test_settings_reach_the_device_as_its_own_flags():
    settings = read_settings({"backend": "trt", "threads": 3, "measure_budget_s": 5, "tf32": False, "seed": 4})
    found = measuring_of(settings)
    assert (found.backend, found.threads, found.measure_budget_s, found.seed) == ("trt", 3, 5.0, 4)
    assert found.options == {"tf32": False}
    assert {flag.name for flag in flags_of(Measuring)} <= set(type(settings).model_fields)
    assert measuring_of(read_settings({})).measure_budget_s == 60


# The tool.


def test_wheel_is_the_same_for_the_same_code():
    assert device_wheel() == device_wheel()


def test_wheel_holds_the_package_and_a_record_of_every_file(tmp_path: Path):
    name, content = device_wheel()
    (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / name) as archive:
        names = archive.namelist()
        (record,) = (each for each in names if each.endswith(".dist-info/RECORD"))
        lines = archive.read(record).decode().splitlines()
        points = archive.read(record.replace("RECORD", "entry_points.txt")).decode()
    assert [line.split(",")[0] for line in lines] == names
    assert {
        "practise_backends/results/bundle.py",
        "practise_backends/runtimes/tensorrt/engine.py",
        "practise_backends/py.typed",
    } <= set(names)
    assert "practise_backends/results/yardstick.onnx" in names and not any("__pycache__" in each for each in names)
    assert "practise-measure = practise_backends.cli:main" in points


def test_wheel_measures_without_being_installed(tmp_path: Path):
    """It comes before what is installed, and brings its own entry points."""
    name, content = device_wheel()
    (tmp_path / name).write_bytes(content)
    program = (
        "import sys; sys.modules['torch'] = None; import practise_backends; from practise_backends.cli import main;"
        "print(practise_backends.__file__, flush=True); sys.exit(main(['nosuch/']))"
    )
    environment = dict(os.environ, PYTHONPATH=str(tmp_path / name))
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert str(tmp_path / name) in done.stdout, done.stdout + done.stderr
    assert done.returncode == 2 and "there is no folder nosuch" in done.stderr


def test_wheel_is_made_of_an_installed_package_alone(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> None:
        raise wheel.PackageNotFoundError(name)

    monkeypatch.setattr(wheel, "distribution", absent)
    with pytest.raises(EnvironmentProblem, match="not installed as a package"):
        device_wheel()


def test_json_of_a_kit_is_plain(written: tuple[WrittenKit, Path]):
    found = json.loads((written[1] / "kit.json").read_text())
    assert found["schema"] == 2 and found["asked"]["options"] == {}
