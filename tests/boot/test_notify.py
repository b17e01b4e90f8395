"""The operator's command: what it is given, how long it may take, and which one is not run."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.boot import host, notify
from mirage_hooks.boot.errors import ConfigError, HostError, RepositoryError
from mirage_hooks.boot.process import identify
from support import wait_for

Script = Callable[[str], str]

EVENT: dict[str, object] = {
    "event": "guest.healthy",
    "message": "größer →\nand a line",
    "time": 1.5,
}


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Return a function that writes a shell script, and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "tell"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return write


def state_with(folder: Path, *command: str) -> Path:
    """Return a state folder whose host file names a command."""
    state = folder / "deployment" / ".git" / "mirage-hooks"
    state.mkdir(parents=True)
    (state / host.NAME).write_text(f'branch = "main"\n[notify]\ncommand = {json.dumps(command)}\n')
    return state


def told(tmp_path: Path, script: Script) -> dict[str, object]:
    """Return what a command is given for an event."""
    state = state_with(tmp_path, script(f"cat >{tmp_path}/told"))
    notify.deliver(state, EVENT)
    value: dict[str, object] = json.loads((tmp_path / "told").read_text())
    return value


# What it is given.


def test_the_command_is_given_the_event(tmp_path: Path, script: Script) -> None:
    given = told(tmp_path, script)
    assert {key: given[key] for key in EVENT} == EVENT


def test_the_command_is_given_one_line(tmp_path: Path, script: Script) -> None:
    told(tmp_path, script)
    assert (tmp_path / "told").read_bytes().count(b"\n") == 1


def test_the_command_is_given_where_it_happened(tmp_path: Path, script: Script) -> None:
    given = told(tmp_path, script)
    assert [given[key] for key in ("repository", "branch", "host")] == [
        str(tmp_path / "deployment"),
        "main",
        socket.gethostname(),
    ]


def test_the_command_is_given_its_arguments_as_they_stand(tmp_path: Path, script: Script) -> None:
    state = state_with(tmp_path, script(f"printf '%s|' \"$@\" >{tmp_path}/told"), "a b", "$HOME")
    notify.deliver(state, EVENT)
    assert (tmp_path / "told").read_text() == "a b|$HOME|"


def test_the_command_finds_nothing_of_our_environment(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "secret")
    notify.run([script(f"env >{tmp_path}/env; pwd >>{tmp_path}/env")], b"", 10)
    lines = (tmp_path / "env").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line} - {"PWD", "SHLVL", "_"}
    assert (names, lines[-1]) == ({"PATH", "LANG", "HOME", "LOGNAME", "USER"}, "/")


def test_without_a_command_nothing_is_run(tmp_path: Path) -> None:
    notify.deliver(state_with(tmp_path), EVENT)


def test_where_nothing_is_installed_any_more_there_is_nobody_to_tell(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="not installed"):
        notify.deliver(tmp_path / "mirage-hooks", EVENT)


# How it ends.


def test_a_command_that_fails_is_told_by_its_last_line(script: Script) -> None:
    path = script("echo first; echo no such channel >&2; exit 3")
    with pytest.raises(HostError, match=f"{path} ended with 3: no such channel$"):
        notify.run([path], b"", 10)


def test_a_command_that_is_killed_is_told_by_its_signal(script: Script) -> None:
    with pytest.raises(HostError, match=r"was killed by signal 15: it said nothing$"):
        notify.run([script("kill $$")], b"", 10)


def test_a_command_may_leave_its_input_unread(script: Script) -> None:
    notify.run([script("exit 0")], b"x" * 300_000, 10)


def test_a_command_may_say_more_than_a_pipe_holds(script: Script) -> None:
    notify.run([script("head -c 1000000 /dev/zero")], b"", 10)


def test_what_a_command_leaves_behind_is_not_waited_for(tmp_path: Path, script: Script) -> None:
    began = time.monotonic()
    notify.run([script(f"sleep 20 & echo $! >{tmp_path}/pid")], b"", 10)
    took = time.monotonic() - began
    identify(int((tmp_path / "pid").read_text())).kill()
    assert took < 5


def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(
    tmp_path: Path, script: Script
) -> None:
    path = script(f"sleep 20 & echo $! >{tmp_path}/pid; trap '' TERM; wait; sleep 20")
    with pytest.raises(HostError, match=r"took more than 0\.5 s, and was killed$"):
        notify.run([path], b"", 0.5)
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return identify(pid).alive
    except ProcessLookupError:
        return False


def test_a_command_that_fills_its_output_for_ever_is_killed_too(script: Script) -> None:
    with pytest.raises(HostError, match=r"was killed$"):
        notify.run([script("exec yes")], b"", 0.5)


# Which one is not run.


def test_a_command_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no program that can be executed"):
        notify.deliver(state_with(tmp_path, f"{tmp_path}/missing"), EVENT)


def test_a_command_that_is_not_executable_is_refused(tmp_path: Path, script: Script) -> None:
    path = script("exit 0")
    Path(path).chmod(0o600)
    with pytest.raises(HostError, match="no program that can be executed"):
        notify.refuse_unfit([path])


def test_a_command_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no program that can be executed"):
        notify.refuse_unfit([str(tmp_path)])


def test_a_command_that_others_may_change_is_refused(tmp_path: Path, script: Script) -> None:
    path = script("exit 0")
    Path(path).chmod(0o777)
    with pytest.raises(HostError, match="may be written by everybody"):
        notify.deliver(state_with(tmp_path, path), EVENT)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_command_of_somebody_else_is_refused(tmp_path: Path, script: Script) -> None:
    path = script("exit 0")
    os.chown(path, 65534, 65534)
    with pytest.raises(HostError, match="belongs to user"):
        notify.deliver(state_with(tmp_path, path), EVENT)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["tell"], "command 'tell' has to be a whole path"),
        (["/bin/tell", "a\nb"], r"command: 'a\\nb' holds a control character"),
        ("/bin/tell", "Expected `array`"),
        ([1], "Expected `str`"),
    ],
)
def test_a_command_that_cannot_be_is_refused(tmp_path: Path, command: object, why: str) -> None:
    with pytest.raises(ConfigError, match=f"notify.*{why.replace('`', chr(39))}"):
        host.parse(f'branch = "main"\n[notify]\ncommand = {json.dumps(command)}\n', "host.toml")


def test_an_unknown_key_beside_the_command_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"host\.toml: notify: unknown key 'commands'"):
        host.parse('branch = "main"\n[notify]\ncommands = []\n', "host.toml")
