"""Files that are written whole or not at all."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mirage_hooks.boot.files import append_durably, is_abandoned, sync_folder, write_atomic

SIZE = 200_000

# Replaces a file again and again, by as many times one letter.
WRITER = """
import itertools, sys
from mirage_hooks.boot.files import write_atomic
for letter in itertools.cycle([b"a", b"b"]):
    write_atomic(sys.argv[1], letter * int(sys.argv[2]))
    print("written", flush=True)
"""

# As far as a file is concerned, a disk with room for 1000 bytes.
FULL = """
import resource, sys
from mirage_hooks.boot.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(sys.argv[1], b"new" * 1000)
except OSError as error:
    print(error.strerror)
"""


def whole(data: bytes) -> bool:
    return data in {b"a" * SIZE, b"b" * SIZE}


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"text")
    assert (tmp_path / "file").read_bytes() == b"text"


def test_a_file_that_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a longer text")
    write_atomic(tmp_path / "file", b"text")
    assert (tmp_path / "file").read_bytes() == b"text"


def test_a_large_file_is_written_to_its_end(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"x" * 10_000_000)
    assert (tmp_path / "file").stat().st_size == 10_000_000


def test_an_empty_file_can_be_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"")
    assert (tmp_path / "file").read_bytes() == b""


def test_a_file_is_private_where_nothing_else_is_asked(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"text")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_a_file_has_the_mode_that_is_asked_for(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"text", 0o700)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o700


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_atomic(folder / "file", b"text")
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_replacement_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder" / "file").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "folder" / "file", b"text")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "missing" / "file", b"text")


def test_a_full_disk_leaves_the_old_text_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(b"old")
    command = [sys.executable, "-I", "-c", FULL, str(folder / "file")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert (done.stdout, left) == ("File too large\n", {"file": b"old"})


def test_a_reader_never_finds_a_part_of_a_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    command = [sys.executable, "-I", "-c", WRITER, str(path), str(SIZE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            writer.stdout.readline()
            assert all(whole(path.read_bytes()) for _ in range(500))
        finally:
            writer.kill()


def test_a_writer_that_is_killed_leaves_a_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    command = [sys.executable, "-I", "-c", WRITER, str(path), str(SIZE)]
    for count in range(1, 6):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(count):
                writer.stdout.readline()
            writer.kill()
        assert whole(path.read_bytes())


def test_only_a_folder_can_be_synced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        sync_folder(tmp_path / "file")


def test_what_is_appended_comes_after_what_was_there(tmp_path: Path) -> None:
    append_durably(tmp_path / "file", b"one\n")
    append_durably(tmp_path / "file", b"two\n")
    assert (tmp_path / "file").read_bytes() == b"one\ntwo\n"


def test_what_cannot_be_appended_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        append_durably(tmp_path / "file", b"text")


DEAD = 4_194_304  # one more than the largest pid there can be


@pytest.mark.parametrize(
    ("name", "abandoned"),
    [
        (f".a.json.{DEAD}.new", True),
        (".a.json.1.new", False),
        (f"a.json.{DEAD}.new", False),
        (f".{DEAD}.gone", False),
        (".a.new", False),
        ("new", False),
    ],
)
def test_a_temporary_file_is_abandoned_once_its_process_is_gone(name: str, abandoned: bool) -> None:
    assert is_abandoned(name) is abandoned
