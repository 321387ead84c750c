"""Files are written whole, and what is at their place is respected."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from practise_backends.files import remove_parts, temporary_folder, write_file


def test_new_file_has_the_permissions_that_the_user_gives_new_files(tmp_path: Path):
    before = os.umask(0o077)
    try:
        write_file(tmp_path / "new" / "a.txt", "one")
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "a.txt").stat().st_mode & 0o777 == 0o600


def test_file_that_is_there_keeps_its_permissions(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    write_file(path, b"new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_link_stays_a_link_and_its_file_is_written(tmp_path: Path):
    real, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    real.parent.mkdir()
    real.write_text("old")
    link.symlink_to(real)
    write_file(link, "new")
    assert link.is_symlink() and real.read_text() == "new"
    assert list(real.parent.iterdir()) == [real]


def test_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path):
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()), daemon=True)
    reader.start()
    write_file(pipe, "said")
    reader.join(10)
    assert heard == ["said"] and pipe.is_fifo()


def test_open_end_of_a_pipe_is_written_to():
    reading, writing = os.pipe()
    write_file(Path(f"/dev/fd/{writing}"), "said")
    os.close(writing)
    with open(reading) as heard:
        assert heard.read() == "said"


def test_longest_name_that_a_folder_takes_is_written(tmp_path: Path):
    path = tmp_path / ("a" * 251 + ".txt")
    write_file(path, "one")
    assert path.read_text() == "one"


@pytest.mark.parametrize("name", ["", "file/inside"])
def test_error_names_the_path_that_was_asked(tmp_path: Path, name: str):
    (tmp_path / "file").write_text("in the way")
    path = tmp_path / name
    with pytest.raises(OSError) as error:
        write_file(path, "one")
    assert error.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_parts_of_killed_writes_are_removed_and_nothing_else(tmp_path: Path):
    (tmp_path / ".0123456789abcdef.part").write_bytes(b"half")
    for other in (".notes.part", "a.part", ".0123456789abcdef.parts"):
        (tmp_path / other).write_bytes(b"someone's")
    remove_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".0123456789abcdef.parts", ".notes.part", "a.part"]


_KILLED = """
import os, signal
from pathlib import Path
from practise_backends.files import temporary_folder
with temporary_folder(Path({place!r})) as folder:
    (folder / "big.onnx").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")
def test_folders_of_killed_runs_are_removed_and_those_in_use_stay(tmp_path: Path):
    subprocess.run([sys.executable, "-c", _KILLED.format(place=str(tmp_path))], check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / "practise-notes").mkdir()
    with temporary_folder(tmp_path) as first:
        assert not left.exists()
        with temporary_folder(tmp_path) as second:
            assert first.is_dir() and second.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["practise-notes"]


@pytest.mark.skipif(sys.platform == "win32", reason="no locks of this kind")
def test_empty_folders_that_were_left_long_ago_are_removed_too(tmp_path: Path):
    for name, age_s in (("practise-old", 7200), ("practise-new", 0), ("practise-notes", 7200)):
        (tmp_path / name).mkdir()
        if name == "practise-notes":
            (tmp_path / name / "mine.txt").write_text("keep")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    with temporary_folder(tmp_path):
        assert not (tmp_path / "practise-old").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"practise-new", "practise-notes"}


def test_name_that_is_no_text_is_written_as_an_escape(tmp_path: Path):
    write_file(tmp_path / "a.md", "photos/caf\udce9.png, \u00e9t\u00e9")
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == "photos/caf\\udce9.png, \u00e9t\u00e9"
