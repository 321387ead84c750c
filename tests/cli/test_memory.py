"""Memory that does not suffice is one message, at whatever library it shows: never blamed on a file or on the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import scripted

ERRORS = (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"))
SEAMS = (
    "torch.onnx.export",
    "torch.Tensor.backward",
    "onnxruntime.InferenceSession.__init__",
    "onnxruntime.InferenceSession.run",
    "PIL.Image.open",
    "torch.nn.Module.load_state_dict",
    "torch.fx.Tracer.trace",
)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Exception], list[str]]:
    """Let a function of a library fail; gives a list of its failures."""

    def fail_at(seam: str, error: Exception) -> list[str]:
        failed: list[str] = []

        def fail(*_: Any, **__: Any) -> None:
            failed.append(seam)
            raise error

        monkeypatch.setattr(scripted, "_EXPORTS", {})
        monkeypatch.setattr(seam, fail)
        return failed

    return fail_at


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(20):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / "photos" / f"{number:02}.png")
    return tmp_path / "photos"


CASES = [(seam, error) for seam in SEAMS for error in ERRORS if (seam, error) != ("torch.Tensor.backward", ERRORS[0])]
"""A step of training is reached late: once is enough."""


@pytest.mark.parametrize(
    ("seam", "error"), CASES, ids=lambda value: getattr(value, "lower", type(value).__name__.lower)()
)
def test_memory_that_does_not_suffice_is_one_message(
    cli: Any, job: tuple[object, ...], photos: Path, failing: Callable[..., list[str]], seam: str, error: Exception
) -> None:
    failed = failing(seam, error)
    network = ("digits",) if seam.endswith("load_state_dict") else (job[0], "--input-size", 16)
    options = ("--skip-bad-images", "--iterations", 2, "--batch-size", 16, "--measure-budget-s", 0.3, "--drop", 1)
    said = cli("build", *network, "--data", photos, *options, "--max-drop", "none", "--quiet")
    assert failed and (said.code, said.out) == (3, ""), said.err
    assert said.err.startswith("error: out of memory") and said.err.count("error: ") == 1
    assert said.err.splitlines()[1].startswith("remedy: use a smaller ") and len(said.err.splitlines()) == 2


@pytest.mark.parametrize("error", ERRORS, ids=["Python", "torch"])
def test_users_function_that_finds_no_memory_is_not_broken(cli: Any, tmp_path: Path, error: Exception) -> None:
    (tmp_path / "large.py").write_text(f"def make():\n    raise {error!r}\n")
    said = cli("inspect", f"{tmp_path / 'large.py'}:make", "--quiet")
    assert said.code == 3 and said.err.startswith("error: out of memory\nremedy: use a smaller "), said.err
