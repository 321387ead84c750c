"""The run folder: whole files, steps that are kept while nothing they depend on changes, one build at a time."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from practise_backends.errors import EnvironmentProblem
from practise_deploy import run as runs
from practise_deploy.errors import InputError
from practise_deploy.run import (
    Run,
    Workspace,
    arrays_digest,
    digest,
    read_arrays,
    to_json,
    write_arrays,
    write_atomically,
)
from practise_deploy.terms import Arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    name: str
    pair: tuple[int, float]
    weights: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    number: int


class Counted:
    """A computation that says how often it ran."""

    def __init__(self, value: float = 1.5) -> None:
        self.times = 0
        self.value = value

    def __call__(self, work: Workspace) -> Result:
        self.times += 1
        return Result(name="a", pair=(2, self.value), weights={"w": np.arange(6, dtype=np.float32).reshape(2, 3)})


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.name != ".lock"]


KEY = {"network": "abc", "images": "def", "settings": {"seed": 0, "share": (1, 2)}}


def test_step_with_equal_inputs_is_kept_by_a_later_run(tmp_path: Path):
    compute, told = Counted(), []
    first = Run(tmp_path).step("score", Result, KEY, compute)
    again = Run(tmp_path, tell=told.append)
    second = again.step("score", Result, dict(reversed(KEY.items())), compute)
    assert compute.times == 1
    assert (second.name, second.pair) == (first.name, first.pair)
    assert np.array_equal(second.weights["w"], first.weights["w"]) and second.weights["w"].dtype == np.float32
    assert again.decisions == {"score": "kept"}
    assert told == ["score: kept from the earlier run (same inputs)"]


@pytest.mark.parametrize(
    "key, reason",
    [
        (KEY | {"images": "new"}, "images changed"),
        (KEY | {"images": "new", "network": "new"}, "images and network changed"),
        (KEY | {"images": "new", "network": "new", "device": "new"}, "device, images and network changed"),
        (KEY | {"settings": {"seed": 1, "share": (1, 2)}}, "seed changed"),
        ({"network": "abc", "images": "def"}, "settings changed"),
    ],
)
def test_changed_input_computes_again_and_says_which_part_changed(tmp_path: Path, key, reason):
    compute, told = Counted(), []
    Run(tmp_path).step("score", Result, KEY, compute)
    run = Run(tmp_path, tell=told.append)
    run.step("score", Result, key, compute)
    assert compute.times == 2
    assert run.decisions == {"score": f"computed: {reason}"}
    assert told == [f"score: computing, because {reason}"]


def test_first_run_says_that_there_is_no_earlier_result(tmp_path: Path):
    run = Run(tmp_path)
    run.step("score", Result, KEY, Counted())
    assert run.decisions == {"score": "computed: there is no earlier result"}


def test_changed_input_of_one_step_leaves_the_others_kept(tmp_path: Path):
    first, second = Counted(), Counted()
    for images in ("a", "b"):
        run = Run(tmp_path)
        run.step("latency", Result, {"network": 1}, first)
        run.step("score", Result, {"images": images}, second)
    assert (first.times, second.times) == (1, 2)


def test_fresh_step_is_computed_again(tmp_path: Path):
    compute = Counted()
    Run(tmp_path).step("score", Result, KEY, compute)
    run = Run(tmp_path, fresh=frozenset({"score"}))
    run.step("score", Result, KEY, compute)
    assert compute.times == 2 and "fresh" in run.decisions["score"]


@pytest.mark.parametrize("file", ["score.json", "score.npz", "score.key.json"])
@pytest.mark.parametrize("damage", ["empty", "half", "garbage", "gone", "another kind"])
def test_damaged_step_is_computed_again(tmp_path: Path, file, damage):
    compute = Counted()
    Run(tmp_path).step("score", Result, KEY, compute)
    path = tmp_path / "steps" / file
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "garbage": b"\x80\x02" * 40,
        "another kind": b"[1, 2]",
    }
    path.unlink() if damage == "gone" else path.write_bytes(damaged[damage])
    run = Run(tmp_path)
    found = run.step("score", Result, KEY, compute)
    assert compute.times == 2 and run.decisions["score"].startswith("computed")
    assert found.pair == (2, 1.5)
    assert Run(tmp_path).step("score", Result, KEY, compute).pair == (2, 1.5) and compute.times == 2


def test_array_with_a_flipped_bit_is_computed_again(tmp_path: Path):
    compute = Counted()
    Run(tmp_path).step("score", Result, KEY, compute)
    path = tmp_path / "steps" / "score.npz"
    content = bytearray(path.read_bytes())
    content[content.index(np.arange(6, dtype=np.float32).tobytes()) + 5] ^= 1
    path.write_bytes(content)
    Run(tmp_path).step("score", Result, KEY, compute)
    assert compute.times == 2


@pytest.mark.parametrize("killed_at", [1, 2, 3])
def test_build_killed_while_a_result_is_written_computes_it_again(tmp_path: Path, monkeypatch, killed_at):
    """The arrays of the new result beside the key of the old one would pass for a kept result."""
    Run(tmp_path).step("score", Result, KEY, Counted(1.0))
    write, written = runs.write_atomically, []

    def killed(path: Path, content: bytes | str) -> None:
        written.append(path)
        if len(written) == killed_at:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(runs, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path).step("score", Result, KEY | {"images": "new"}, Counted(2.0))
    monkeypatch.undo()
    old, new = Counted(1.0), Counted(2.0)
    assert Run(tmp_path).step("score", Result, KEY, old).pair == (2, 1.0) and old.times == 1
    assert Run(tmp_path).step("score", Result, KEY | {"images": "new"}, new).pair == (2, 2.0) and new.times == 1


def test_computation_that_fails_leaves_the_earlier_result_in_place(tmp_path: Path):
    compute = Counted()
    Run(tmp_path).step("score", Result, KEY, compute)

    def fails(work: Workspace) -> Result:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path).step("score", Result, KEY | {"images": "new"}, fails)
    Run(tmp_path).step("score", Result, KEY, compute)
    assert compute.times == 1


def test_kept_step_reports_the_seconds_it_once_took(tmp_path: Path):
    first, second = Run(tmp_path), Run(tmp_path)
    first.step("score", Result, KEY, Counted())
    second.step("score", Result, KEY, Counted())
    assert second.seconds == first.seconds


@pytest.mark.parametrize("file", ["score.json", "score.npz"])
def test_step_that_was_changed_since_is_computed_again_and_said(tmp_path: Path, file: str):
    """Whole, readable and of the same type: only its hash tells."""
    compute = Counted()
    Run(tmp_path).step("score", Result, KEY, compute)
    path = tmp_path / "steps" / file
    if file == "score.json":
        path.write_text(path.read_text().replace("1.5", "99.0"))
    else:
        write_arrays(path, {"w": np.zeros((2, 3), np.float32)})
    again = Run(tmp_path)
    found = again.step("score", Result, KEY, compute)
    assert compute.times == 2 and found.pair == (2, 1.5) and found.weights["w"].any()
    assert again.decisions == {"score": f"computed: {file} is missing or changed"}


def test_parts_of_killed_writes_are_gone_once_the_folder_is_held(tmp_path: Path):
    parts = [tmp_path / ".00112233aabbccdd.part", tmp_path / "steps" / ".ffeeddccbbaa9988.part"]
    parts[1].parent.mkdir()
    for part in parts:
        part.write_bytes(b"half")
    with Run(tmp_path).locked():
        assert not any(part.exists() for part in parts)


def test_partial_result_is_gone_once_the_step_is_whole(tmp_path: Path):
    files = []

    def compute(work: Workspace) -> Plain:
        files.append(work.partial)
        write_arrays(work.partial, {"so_far": np.ones(3)})
        return Plain(number=1)

    for key in (KEY, KEY | {"images": "new"}):
        Run(tmp_path).step("score", Plain, key, compute)
    assert files[0] != files[1] and not any(file.exists() for file in files)


def test_record_that_is_an_input_tells_which_of_its_parts_changed(tmp_path: Path):
    compute = Counted()
    Run(tmp_path).step("score", Result, KEY | {"how": {"seed": 0, "images": {"count": 1, "size": 2}}}, compute)
    run = Run(tmp_path)
    run.step("score", Result, KEY | {"how": {"seed": 0, "images": {"count": 1, "size": 3}}}, compute)
    assert run.decisions == {"score": "computed: size changed"}


def test_written_file_is_whole_and_alone(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "one")
    write_atomically(path, b"two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert leftovers(tmp_path) == []


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, "one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentProblem, match="No space left"):
        write_atomically(path, "two")
    assert path.read_text() == "one" and leftovers(tmp_path) == []


def test_interrupted_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomically(path, "one")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "two")
    assert path.read_text() == "one" and leftovers(tmp_path) == []


def test_folder_that_cannot_be_written_is_a_problem_of_the_environment(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentProblem, match="cannot write") as error:
        Run(tmp_path / "file" / "run").write("a.txt", "x")
    assert "--out" in error.value.remedy and error.value.exit_code == 3
    with pytest.raises(EnvironmentProblem, match="cannot write into"), Run(tmp_path / "file" / "run").locked():
        pass


def test_second_build_in_the_same_folder_is_refused_until_the_first_is_done(tmp_path: Path):
    first, second = Run(tmp_path).locked(), Run(tmp_path).locked()
    with first, pytest.raises(InputError, match="another build is writing"), second:
        pass
    with Run(tmp_path).locked():
        pass


def test_lock_is_let_go_when_a_build_fails(tmp_path: Path):
    with pytest.raises(ValueError), Run(tmp_path).locked():
        raise ValueError
    with Run(tmp_path).locked():
        pass


def test_arrays_survive_the_round_trip_with_type_and_shape(tmp_path: Path):
    arrays = {"a/b.c": np.zeros((0, 3), np.int64), "d": np.array(2.5), "e": np.array([[np.nan, -0.0]], np.float16)}
    write_arrays(tmp_path / "a.npz", arrays)
    found = read_arrays(tmp_path / "a.npz")
    assert arrays_digest(found) == arrays_digest(arrays)


def test_digest_of_arrays_sees_names_types_shapes_and_values_but_not_order():
    a, b = np.arange(4, dtype=np.float32), np.ones(2)
    assert arrays_digest({"a": a, "b": b}) == arrays_digest({"b": b, "a": a})
    others = [{"c": a}, {"a": a.astype(np.float64)}, {"a": a.reshape(2, 2)}, {"a": a + 1}]
    assert len({arrays_digest(other) for other in [{"a": a}, *others]}) == 5


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})


def test_json_of_a_record_leaves_its_arrays_out():
    record = Result(name="a", pair=(2, 1.5), weights={"w": np.zeros(3)})
    assert '"weights"' not in to_json(record) and '"pair"' in to_json(record)


def test_want_of_memory_is_no_damage_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_arrays(tmp_path / "a.npz", {"a": np.zeros(3)})

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 9. TiB for an array")

    monkeypatch.setattr("practise_deploy.run.np.load", no_memory)
    with pytest.raises(MemoryError):
        read_arrays(tmp_path / "a.npz")
