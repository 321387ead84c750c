"""The README's tables hold what the benchmarks wrote, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_tables_are_the_ones_that_the_committed_results_make():
    done = subprocess.run([sys.executable, ROOT / "benchmarks" / "readme.py", "--check"], check=False)
    assert done.returncode == 0, "run python benchmarks/readme.py"


def test_first_two_install_lines_are_the_job_and_the_tests():
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("pip install ")]
    assert lines[0].endswith("&& practise-deploy build")
    assert lines[1].endswith("&& pytest -n 2")
