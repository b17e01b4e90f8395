"""What is open to a user."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mirage_hooks.boot import access
from mirage_hooks.boot.errors import HostError
from support import USER

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can try as another user")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder that nobody but its owner may enter."""
    tmp_path.chmod(0o700)
    path = tmp_path / "file"
    path.touch(0o600)
    return path


def test_what_is_missing_is_told_as_missing(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=f"{tmp_path}/none cannot be used: No such file"):
        access.refuse_closed(f"{tmp_path}/none", None)


def test_ones_own_file_is_open(file: Path) -> None:
    access.refuse_closed(str(file), None)


@as_root
def test_a_file_of_another_is_closed_and_it_is_said_to_what(file: Path) -> None:
    with pytest.raises(HostError) as error:
        access.refuse_closed(str(file), USER)
    message = f"{file} is closed to user {USER}, who has to read and write it"
    assert error.value.message == message


@as_root
@pytest.mark.parametrize(
    ("mode", "need", "closed"),
    [
        (0o604, "rw", "write"),
        (0o602, "rw", "read"),
        (0o604, "r", None),
        (0o606, "rw", None),
        (0o705, "x", None),
        (0o700, "x", "execute"),
        (0o060, "rw", "read and write"),  # of its group, which is root's
    ],
)
def test_what_a_file_is_open_for_goes_by_its_mode(
    file: Path, mode: int, need: str, closed: str | None
) -> None:
    file.chmod(mode)
    if closed is None:
        access.refuse_closed(str(file), USER, need)
    else:
        with pytest.raises(HostError, match=f"who has to {closed} it"):
            access.refuse_closed(str(file), USER, need)


@as_root
def test_a_file_that_was_given_away_is_open_to_its_owner(file: Path) -> None:
    shutil.chown(file, str(USER))
    access.refuse_closed(str(file), USER)


@as_root
def test_an_access_control_list_counts(file: Path) -> None:
    if shutil.which("setfacl") is None:
        pytest.skip("access control lists take setfacl: apt-get install acl")
    done = subprocess.run(["setfacl", "-m", f"u:{USER}:rw", file], check=False)
    if done.returncode != 0:
        pytest.skip("this file system has no access control lists")
    access.refuse_closed(str(file), USER)


@as_root
def test_no_descriptor_is_left_open(file: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(HostError):
        access.refuse_closed(str(file), USER)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
