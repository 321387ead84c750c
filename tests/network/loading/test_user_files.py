"""A user's Python file runs as a program of its own: with its arguments, its folder, and a name that hides nothing."""

import importlib
import sys
from pathlib import Path

import pytest
from torch import nn

from practise_deploy.errors import InputError
from practise_deploy.network.loading.sources import construct
from practise_deploy.settings import Settings

PARSER = "import argparse\nparser = argparse.ArgumentParser()\n"


def made(path: Path, text: str) -> nn.Module:
    path.write_text(text)
    return construct(Settings(network=f"{path}:make"), structure_only=True)[0]


def test_file_sees_its_own_name_and_no_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["practise-deploy", "plan", "--width", "9"])
    module = made(
        tmp_path / "net.py",
        f"{PARSER}parser.add_argument('--width', type=int, default=5)\nwidth = parser.parse_args().width\n"
        "import sys\nfrom torch import nn\ndef make():\n    assert sys.argv == [__file__]\n    return nn.Linear(1, width)\n",
    )
    assert module.out_features == 5 and sys.argv == ["practise-deploy", "plan", "--width", "9"]


@pytest.mark.parametrize(
    "text, said",
    [
        (f"{PARSER}parser.add_argument('data')\nparser.parse_args()\n", r"net\.py:make ended with exit\(2\) in line 4"),
        ("def make():\n    raise SystemExit('no GPU')\n", r"ended with exit\('no GPU'\) in line 2"),
        ("import sys\nsys.exit()\n", r"ended with exit\(None\) in line 2"),
    ],
    ids=["parser", "message", "nothing"],
)
def test_file_that_exits_is_an_error_that_names_the_line(tmp_path: Path, text: str, said: str):
    arguments, path = list(sys.argv), list(sys.path)
    with pytest.raises(InputError, match=said) as error:
        made(tmp_path / "net.py", text)
    assert "__main__" in error.value.remedy and (sys.argv, sys.path) == (arguments, path)


def test_file_that_takes_its_folder_out_of_the_path_is_run(tmp_path: Path):
    text = "import sys\nfrom torch import nn\nsys.path.pop(0)\ndef make():\n    return nn.Identity()\n"
    assert isinstance(made(tmp_path / "net.py", text), nn.Identity)


@pytest.mark.parametrize("name", ["torchvision", "colorsys", "safetensors"])
def test_file_named_like_a_library_does_not_hide_it(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    library = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    text = f"import {name}\nfrom torch import nn\ndef make():\n    return nn.Linear(1, len({name}.__name__))\n"
    assert made(tmp_path / f"{name}.py", text).out_features == len(name)
    assert sys.modules[name].__file__ == library.__file__


CONFIGURED = (
    "from torch import nn\ndef make():\n    made = nn.Identity()\n    made.pretrained_cfg = {}\n    return made\n"
)


@pytest.mark.parametrize("config", ["{'input_size': (32, 32)}", "{'mean': 0.5}", "{'std': ('a', 'b', 'c')}"])
def test_configuration_that_cannot_be_meant_is_an_error_that_shows_it(tmp_path: Path, config: str):
    with pytest.raises(InputError, match=r"net\.py:make gives ") as error:
        made(tmp_path / "net.py", CONFIGURED.format(config))
    assert "(channels, height, width)" in error.value.remedy


def test_configuration_of_another_kind_is_none(tmp_path: Path):
    (tmp_path / "net.py").write_text(CONFIGURED.format("'imagenet'"))
    assert construct(Settings(network=f"{tmp_path / 'net.py'}:make"), structure_only=True)[1] == {}
