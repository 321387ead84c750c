"""Every kind of file that a user may name to `practise-measure`: one error with its path, and a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backends.kits import make_kit, scripted_device
from damages import DAMAGES, Damage, below_a_file, told
from practise_backends.cli import main
from practise_backends.runtimes import catalog

FILES: dict[str, tuple[str, Callable[[Path, Path], list[object]]]] = {
    "to bench": ("a.onnx", lambda bad, _: ["bench", bad]),
    "to bench, of ONNX Runtime": ("a.ort", lambda bad, _: ["bench", bad]),
    "to bench against": ("a.onnx", lambda bad, good: ["bench", good, "--against", bad]),
    "to compare": ("a.onnx", lambda bad, good: ["compare", bad, good]),
    "to compare with": ("a.onnx", lambda bad, good: ["compare", good, bad]),
    "kit": ("kit", lambda bad, _: ["table", bad]),
}
OF_KITS = ("kit.json", "networks/original.onnx", "networks/a0.onnx")


@pytest.fixture(autouse=True)
def _device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalog, "load_backend", lambda name, options: scripted_device())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("kind", FILES)
def test_file_that_cannot_be_used(
    kind: str, damage: Damage, network_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, words = FILES[kind]
    file = tmp_path / "given" / name
    file.parent.mkdir()
    damage(file)
    assert main([str(one) for one in words(file, network_file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and told(err, file), err
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("damage", [one for one in DAMAGES if one is not below_a_file], ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", OF_KITS)
def test_kit_that_cannot_be_used(
    name: str, damage: Damage, network_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "kit"
    make_kit(folder, network_file)
    (folder / name).unlink()
    damage(folder / name)
    assert main(["table", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and told(err, folder), err
    assert not (folder / "latency.json").exists()
