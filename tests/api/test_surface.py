"""What `import practise_deploy` offers, and what it does not do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import practise_deploy as pd
from practise_deploy.api.comparing import OF_COMPARISON
from practise_deploy.api.words import in_python
from practise_deploy.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
FUNCTIONS = ("build", "compare", "frontier", "inspect", "measure_latency", "plan")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def test_public_names_are_the_documented_ones():
    table = PAGE.split("<!-- public names -->")[1].split("<!-- end of public names -->")[0]
    documented = re.findall(r"^\| `(\w+)", table, re.M)
    assert sorted(documented) == sorted(set(documented)) == sorted(pd.__all__)
    assert set(pd.__all__) <= set(dir(pd))
    assert all(getattr(pd, name) is not None for name in pd.__all__)


def test_public_attributes_of_a_release_are_documented():
    public = {name for name in (*vars(pd.Release), *pd.Release.__dataclass_fields__) if name[0] != "_"}
    assert public <= set(re.findall(r"`\.(\w+)`", PAGE))


def test_name_that_is_not_there_is_the_usual_error():
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        pd.prune  # noqa: B018


def test_importing_the_package_imports_no_heavy_library_and_changes_no_variable():
    code = (
        "import os, sys; before = dict(os.environ); import practise_deploy\n"
        "heavy = [m for m in ('torch', 'onnx', 'onnxruntime', 'numpy', 'pydantic') if m in sys.modules]\n"
        "practise_deploy.InputError\n"
        "print(heavy, dict(os.environ) == before, 'torch' in sys.modules)"
    )
    assert run(code) == "[] True False"


def test_libraries_get_their_defaults_before_they_are_loaded_and_the_users_own_stay():
    code = (
        "import os; os.environ.pop('OMP_WAIT_POLICY', None); os.environ['ORT_DISABLE_TELEMETRY'] = '0'\n"
        "import practise_deploy as pd; pd.build\n"
        "from practise_deploy.environment import unsaid_notes\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['ORT_DISABLE_TELEMETRY'], unsaid_notes())"
    )
    assert run(code) == "PASSIVE 0 []"


def test_torch_that_was_loaded_too_early_is_told_once():
    code = (
        "import os; os.environ.pop('OMP_WAIT_POLICY', None); import torch; torch.set_num_threads(2)\n"
        "import practise_deploy as pd; pd.build\n"
        "from practise_deploy.environment import unsaid_notes\n"
        "print(unsaid_notes(), unsaid_notes())"
    )
    assert re.fullmatch(r"\['torch was imported before .* OMP_WAIT_POLICY=PASSIVE'\] \[\]", run(code))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_help_lists_the_settings_by_their_names_and_no_flag(name: str):
    told = getattr(pd, name).__doc__
    names = OF_COMPARISON if name == "compare" else set(Settings.model_fields) - {"network", "data", "backend_options"}
    assert all(f"    {setting}: " in told for setting in names)
    assert "--" not in told


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("give --max-drop 1.5 or --max-drop none", 'give max_drop=1.5 or max_drop="none"'),
        ("--reduce 200: must be below 100%", "reduce=200: must be below 100%"),
        ("ask for --reduce 20%, or leave --input-size out", "ask for reduce=20, or leave input_size out"),
        ("remove it, or give --skip-bad-images", "remove it, or give skip_bad_images=True"),
        ("the tiny set is missing (--data)", "the tiny set is missing (images)"),
        ("pip install --no-deps x", "pip install --no-deps x"),
        ("python:images:ndarray gives 5 images", "images (ndarray) gives 5 images"),
        ("python:TinyResNet: no block", "TinyResNet: no block"),
        ("return the logits alone: FILE.py:FUNCTION", "return the logits alone, and give that module"),
    ],
)
def test_messages_are_in_pythons_words(written: str, read: str):
    assert in_python(written) == read == in_python(read)


def test_call_with_arguments_that_are_no_settings_names_the_near_one(module: Any, pixels: Any):
    with pytest.raises(pd.InputError, match="did you mean 'reduce'"):
        pd.build(module, pixels, reduc=22)
    with pytest.raises(pd.InputError, match="did you mean 'threads'"):
        pd.compare(module, module, thread=2)
    with pytest.raises(pd.InputError, match="give the images as the second argument"):
        pd.build(module, data=pixels)
