"""Files are written whole, and what is at their place is respected."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from practise_backends.files import write_file


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
