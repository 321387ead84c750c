"""A user's own metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from practise_deploy.errors import InputError
from practise_deploy.tasks.judging import shares_of
from practise_deploy.terms import Task, TaskKind

ONE = np.arange(12, dtype=np.float32).reshape(3, 4)


def task(folder: Path, body: str, shapes=((4,),), names=("out",), arguments: str = "original, new") -> Task:
    file = folder / "measure.py"
    file.write_text(f"import numpy as np\ndef metric({arguments}):\n    {body}\n")
    return Task(kind=TaskKind.CUSTOM, metric=f"{file}:metric", shapes=shapes, names=names)


def test_metric_gets_the_output_of_both_networks(tmp_path: Path):
    asked = task(tmp_path, "return (np.abs(original - new).max(1) < 1).astype(float)")
    assert shares_of(asked, ONE, ONE + np.array([[0], [2], [0]])).tolist() == [1, 0, 1]


def test_metric_gets_several_outputs_by_name_and_in_their_shape(tmp_path: Path):
    body = "assert original['a'].shape == (3, 2, 1) and new['b'].shape == (3, 2); return original['b'][:, 0] * 0 + 0.5"
    asked = task(tmp_path, body, shapes=((2, 1), (2,)), names=("a", "b"))
    assert shares_of(asked, ONE, ONE).tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no model')", "failed: RuntimeError: no model"),
        ("return 0.5", r"numbers of shape \(\)"),
        ("return np.ones(2)", r"numbers of shape \(2,\)"),
        ("return np.full(3, 97.0)", "between 97 and 97"),
        ("return np.full(3, np.nan)", "between nan and nan"),
        ("return ['a'] * 3", "failed: ValueError"),
    ],
)
def test_metric_that_gives_no_share_for_each_image_is_an_error_with_a_remedy(tmp_path: Path, body: str, said: str):
    with pytest.raises(InputError, match=said) as error:
        shares_of(task(tmp_path, body), ONE, ONE)
    assert "a number from 0 to 1 for each image" in error.value.remedy


def test_metric_of_other_arguments_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be called with two arguments"):
        shares_of(task(tmp_path, "return 1", arguments="original"), ONE, ONE)
