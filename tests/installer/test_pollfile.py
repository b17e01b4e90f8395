"""The script that polls, as it is dropped: sh and Python in one file."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.installer import hookfile, pollfile
from support import Site

PATHS = ["/usr/bin/python3", "/opt/my tools/it's/$HOME/`id`/python"]


@pytest.mark.parametrize("path", PATHS)
def test_the_script_is_valid_python(path: str) -> None:
    compile(pollfile.render(path), "poll", "exec")


@pytest.mark.parametrize("path", PATHS)
def test_the_script_is_valid_sh_as_far_as_sh_reads(path: str) -> None:
    text = pollfile.render(path).partition(b"\n':'''\n")[0]
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_install_drops_the_script_for_its_owner_alone(site: Site) -> None:
    site.install()
    assert site.state.poll.stat().st_mode & 0o777 == 0o700
    assert hookfile.is_ours(site.state.poll)


def test_uninstall_that_keeps_the_state_takes_the_script_out(site: Site) -> None:
    site.install()
    site.command("uninstall", "--yes", "--keep-state")
    assert not site.state.poll.exists()


@pytest.mark.parametrize(
    ("break_it", "finding"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.chmod(0o600), "is not executable"),
        (lambda path: path.write_bytes(pollfile.render("/opt/gone/python")), "is gone"),
    ],
    ids=["missing", "not executable", "its interpreter gone"],
)
def test_the_doctor_finds_a_script_that_cannot_be_run(
    site: Site, break_it: Callable[[Path], object], finding: str
) -> None:
    site.install()
    break_it(site.state.poll)
    told = site.command("doctor", check=False).stdout.splitlines()
    lines = [line for line in told if "poll script" in line]
    assert [("failed" in line, finding in line) for line in lines] == [(True, True)]


def test_a_script_whose_interpreter_is_gone_says_so(site: Site) -> None:
    site.install()
    site.state.poll.write_bytes(pollfile.render("/opt/gone/python"))
    done = subprocess.run([site.state.poll], capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "nothing was deployed: /opt/gone/python is gone" in done.stderr


def test_the_command_without_the_script_says_what_to_do(site: Site) -> None:
    site.install()
    site.state.poll.unlink()
    done = site.command("poll", check=False)
    assert (done.returncode, "run: mirage-hooks install" in done.stderr) == (6, True)
