"""The examples that users copy: they run as they stand, in an empty folder and a fresh process."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import practise_deploy as pd

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "digits.py"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", ROOT / "docs" / "python.md")}


def example_of(page: str) -> str:
    return re.findall(r"```python\n(.*?)```", PAGES[page], re.S)[0]


def run(code: str, folder: Path) -> list[str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_examples_of_the_pages_use_public_names_alone(page: str):
    names = {node.attr for node in ast.walk(ast.parse(example_of(page)))
             if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pd"}  # fmt: skip
    assert names and names <= set(pd.__all__)


def test_example_is_cells():
    text = EXAMPLE.read_text(encoding="utf-8")
    cells = re.split(r"^# %%.*\n", text, flags=re.M)[1:]
    assert len(cells) > 10 and all(cell.strip() for cell in cells)
    assert {name for name in ("inspect", "measure_latency", "plan", "build", "compare") if f"pd.{name}(" in text} == {
        "inspect", "measure_latency", "plan", "build", "compare",
    }  # fmt: skip


@pytest.mark.slow
def test_example_of_the_readme_runs(tmp_path: Path):
    said = run(example_of("README.md"), tmp_path)
    assert said[0].startswith("digits: ") and "times as fast as the original" in said[0]
    assert (tmp_path / "runs" / "digits" / "model.onnx").is_file()


@pytest.mark.slow
def test_example_runs_as_a_script(tmp_path: Path):
    said = run(EXAMPLE.read_text(encoding="utf-8"), tmp_path)
    assert said[0] == "DigitsNetwork: 9 blocks, of which 7 can be dropped"
    assert "times as fast as the original" in "\n".join(said) and said[-1].startswith("Speed-up ")
    assert (tmp_path / "runs" / "DigitsNetwork" / "report.html").is_file()
