"""A run folder is read back as it was written, and says what is wrong where it cannot be."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from practise_deploy.errors import InputError
from practise_deploy.outcome import Release
from practise_deploy.pipeline.results import read_release
from practise_deploy.report import render_html
from practise_deploy.run import file_digest, to_json, write_arrays
from practise_deploy.terms import SCHEMA
from samples import releases


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    whole = releases.release()
    (tmp_path / "release.json").write_text(to_json(whole))
    write_arrays(tmp_path / "samples.npz", {f"bench/{name}": found for name, found in whole.bench.samples.items()})
    return tmp_path


def without_samples(release: Release) -> Release:
    return replace(release, bench=replace(release.bench, samples={}))


def test_release_is_read_back_as_it_was(folder: Path) -> None:
    found, written = read_release(folder), releases.release()
    assert without_samples(found) == without_samples(written)
    np.testing.assert_array_equal(found.bench.samples["rounds_ms"], written.bench.samples["rounds_ms"])
    assert found.latency.samples == {}
    assert render_html(found) == render_html(written)


def test_release_without_samples_is_read(folder: Path) -> None:
    (folder / "samples.npz").unlink()
    assert read_release(folder).bench.samples == {}


def test_number_that_was_none_is_read_as_none(folder: Path) -> None:
    odd = replace(releases.release(), recovered=replace(releases.student("refit", 0.1), mse_before=math.inf))
    (folder / "release.json").write_text(to_json(odd))
    assert math.isnan(read_release(folder).recovered.mse_before)


def test_folder_without_a_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no release\.json") as refused:
        read_release(tmp_path)
    assert "folder of a finished build" in refused.value.remedy


@pytest.mark.parametrize(
    ("text", "said"), [("{", "cannot read"), ("[]", "has schema None"), ('{"schema": 1}', "has schema 1")]
)
def test_file_of_another_kind_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / "release.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_release(folder)


def test_damaged_release_names_the_field(folder: Path) -> None:
    content = json.loads((folder / "release.json").read_text())
    assert content["schema"] == SCHEMA
    content["plan"]["baseline_ms"] = "fast"
    (folder / "release.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"is damaged: plan\.baseline_ms"):
        read_release(folder)


def test_damaged_samples_are_refused(folder: Path) -> None:
    (folder / "samples.npz").write_bytes((folder / "samples.npz").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"samples\.npz is damaged"):
        read_release(folder)


def vouched(folder: Path) -> None:
    """Write the manifest that a build writes last."""
    names = ("release.json", "samples.npz")
    hashes = {name: file_digest(folder / name) for name in names}
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "files_sha256": hashes}))


@pytest.mark.parametrize("name", ["release.json", "samples.npz"])
def test_file_that_is_not_what_the_build_wrote_is_refused(folder: Path, name: str) -> None:
    vouched(folder)
    assert read_release(folder)
    if name == "release.json":
        (folder / name).write_text(to_json(replace(releases.release(), speedup=None)))
    else:
        write_arrays(folder / name, {})
    with pytest.raises(InputError, match=rf"{name} is not the file that the build wrote") as refused:
        read_release(folder)
    assert "build again" in refused.value.remedy


@pytest.mark.parametrize("text", ["{", "[]", "{}", "[" * 100_000, '{"files_sha256": []}'])
def test_damaged_manifest_vouches_for_nothing(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        read_release(folder)
