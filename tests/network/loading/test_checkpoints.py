"""Files that pass for weights: each is told for what it is, and of what holds weights they are found."""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from practise_deploy.errors import InputError
from practise_deploy.network.loading.checkpoints import read_state_dicts

WEIGHTS = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}


pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


class Runs:
    """Pickles as a call that leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return eval, (f"open({str(self.path)!r}, 'w')",)


def scripted(path: Path) -> None:
    torch.jit.script(nn.Linear(3, 2)).save(str(path))


def exported(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def cut_short(path: Path) -> None:
    torch.save(WEIGHTS, path)
    path.write_bytes(path.read_bytes()[:-100])


OTHERS = {
    "pointer": (
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n"),
        "Git LFS",
        "git lfs pull",
    ),
    "page": (lambda p: p.write_text("\n  <html><body>Sign in</body></html>"), "a web page", "download"),
    "index": (lambda p: p.write_text('{"weight_map": {}}'), "JSON", "the file of weights"),
    "hdf5": (lambda p: p.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5", "torch"),
    "gzip": (lambda p: p.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "gzip", "unpack"),
    "npz": (lambda p: np.savez(p.open("wb"), a=np.zeros(3)), "archive of a.npy", "state dict"),
    "torchscript": (scripted, "TorchScript archive", "torch.jit.load"),
    "torch.export": (exported, "torch.export", "FILE.pt2"),
    "cut short": (cut_short, "cut short", "again"),
    "empty": (lambda p: p.touch(), "empty", "again"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_file_of_another_kind_is_told_for_what_it_is_and_not_called_damaged(tmp_path: Path, kind: str, name: str):
    make, said, remedy = OTHERS[kind]
    make(tmp_path / name)
    with pytest.raises(InputError, match=name) as error:
        read_state_dicts(tmp_path / name)
    assert said in error.value.message and remedy in error.value.remedy
    assert "damaged" not in error.value.message


def test_remedy_for_torchscript_gives_the_weights(tmp_path: Path):
    scripted(tmp_path / "w.pt")
    with pytest.raises(InputError) as error:
        read_state_dicts(tmp_path / "w.pt")
    command = error.value.remedy.removeprefix("save its state dict: ")
    exec(command.replace("'weights.pth'", repr(str(tmp_path / "weights.pth"))), {"torch": torch})
    assert read_state_dicts(tmp_path / "weights.pth")[()].keys() == {"weight", "bias"}


def test_weights_beside_objects_of_other_packages_are_read_and_the_objects_are_not(tmp_path: Path):
    left = tmp_path / "ran"
    more = {"args": argparse.Namespace(lr=0.1), "best": np.float32(3), "folder": tmp_path, "runs": Runs(left)}
    torch.save({"weights": WEIGHTS, **more}, tmp_path / "w.pth")
    found = read_state_dicts(tmp_path / "w.pth")
    assert found["weights",].keys() == WEIGHTS.keys() and not left.exists()


def test_objects_that_cannot_be_passed_over_are_named(tmp_path: Path):
    torch.save(
        {"weights": WEIGHTS, "args": argparse.Namespace()}, tmp_path / "w.pth", _use_new_zipfile_serialization=False
    )
    with pytest.raises(InputError, match=r"holds more than tensors: argparse\.Namespace"):
        read_state_dicts(tmp_path / "w.pth")


def test_keys_of_a_file_without_weights_are_listed(tmp_path: Path):
    torch.save({"epoch": 3, "model": nn.Linear(3, 2), "args": argparse.Namespace()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"epoch \(int\), model \(.*Linear\), args \(argparse\.Namespace\)"):
        read_state_dicts(tmp_path / "w.pth")


def test_weights_are_found_at_any_depth_once_and_not_in_the_state_of_an_optimiser(tmp_path: Path):
    deep = {"a": {"b": {"weights": WEIGHTS}}, "again": WEIGHTS, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    deep["itself"] = deep
    torch.save(deep, tmp_path / "w.pth")
    assert list(read_state_dicts(tmp_path / "w.pth")) == [("a", "b", "weights")]


def test_format_is_told_by_the_contents(tmp_path: Path):
    save_file(WEIGHTS, tmp_path / "w.bin")
    assert read_state_dicts(tmp_path / "w.bin")[()].keys() == WEIGHTS.keys()


def test_plain_pickle_is_an_error_that_names_the_file(tmp_path: Path):
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match=r"w\.pth"):
        read_state_dicts(tmp_path / "w.pth")


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"weights": w, "args": argparse.Namespace(a=1)}])
def test_damaged_file_is_an_error_that_names_it_wherever_the_damage_is(tmp_path: Path, wrap):
    torch.save(wrap(WEIGHTS), tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, len(whole), 100):
        damaged = bytearray(whole)
        damaged[place : place + 4] = random.bytes(4)
        (tmp_path / "w.pth").write_bytes(damaged)
        try:
            read_state_dicts(tmp_path / "w.pth")
        except InputError as error:
            assert "w.pth" in error.message and error.remedy
