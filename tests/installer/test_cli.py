"""The command line: help, exit codes, what is printed where, completion."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from mirage_hooks.boot.errors import ConfigError, Error, HostError, ImageError, RepositoryError
from mirage_hooks.installer.cli import cli
from support import COMMAND, Site, run, wait_for

COMMANDS = cli.list_commands(click.Context(cli))
EXPECTED_COMMANDS = {
    *["install", "uninstall", "doctor", "status", "plan", "deploy", "reboot"],
    *["stop", "start", "rollback", "history", "logs"],
}
REFERENCE = Path(__file__).parents[2] / "docs" / "reference.md"
ESCAPE = "\x1b["


def on_terminal(
    *command: str | Path, cwd: Path, typed: str = "", **environment: str
) -> tuple[int, str]:
    """Run a command on a terminal; return what it ends with, and what is on the screen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "200", **environment},
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    screen = b""
    try:
        while data := os.read(ours, 4096):
            screen += data
    except OSError:
        pass  # how Linux says that the other end of a terminal was closed
    finally:
        os.close(ours)
    return process.wait(30), screen.decode()


def coloured(screen: str, word: str) -> bool:
    """Whether a word is in a colour of its own."""
    return re.search(rf"\x1b\[[0-9;]*3\dm{re.escape(word)}", screen) is not None


# Help.


def test_there_is_every_command() -> None:
    assert set(COMMANDS) >= EXPECTED_COMMANDS


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_lists_every_command(tmp_path: Path, option: str) -> None:
    said = run(COMMAND, option, cwd=tmp_path).stdout
    assert [name for name in COMMANDS if not re.search(rf"^  {name} +\S", said, re.M)] == []


def test_the_help_says_where_to_begin(tmp_path: Path) -> None:
    assert "mirage-hooks install" in run(COMMAND, "--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_that_says_more_than_its_name(tmp_path: Path, name: str) -> None:
    said = run(COMMAND, name, "--help", cwd=tmp_path).stdout
    assert said.startswith(f"Usage: mirage-hooks {name}")
    description = said.partition("\n\n")[2].partition("\n\nOptions:")[0]
    assert len(description.split()) > 6, description


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []


def test_the_version_is_told(tmp_path: Path) -> None:
    said = run(COMMAND, "--version", cwd=tmp_path).stdout
    assert re.fullmatch(r"mirage-hooks \d+\.\d+\.\d+\S*\n", said)


def test_a_repository_can_be_named_from_anywhere(deployed: Site, tmp_path: Path) -> None:
    said = run(COMMAND, "-C", str(deployed.clone), "status", cwd=tmp_path / "home").stdout
    assert said.startswith(f"{deployed.clone}: main at ")


def test_git_variables_of_another_repository_lead_nowhere(
    deployed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(deployed.upstream / ".git"))
    assert deployed.command("status").stdout.startswith(f"{deployed.clone}: main at ")


# Exit codes.


@pytest.mark.parametrize(
    ("error", "code"),
    [(Error, 1), (ConfigError, 3), (RepositoryError, 4), (ImageError, 5), (HostError, 6)],
)
def test_every_kind_of_error_has_its_exit_code(error: type[Error], code: int) -> None:
    assert error.exit_code == code


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6, 70, 130])
def test_every_exit_code_is_documented(code: int) -> None:
    assert re.search(rf"^\| {code} \| \S", REFERENCE.read_text(), re.M)


@pytest.mark.parametrize("arguments", [("no-such-command",), ("--no-such-option",), ("-C",)])
def test_a_wrong_command_line_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(COMMAND, *arguments, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, "Error: " in done.stderr) == (2, "", True)


def test_a_host_file_with_an_unknown_key_ends_with_3(deployed: Site) -> None:
    text = deployed.state.host_file.read_text()
    deployed.state.host_file.write_text(f'colour = "red"\n{text}')
    done = deployed.command("status", check=False)
    assert (done.returncode, "unknown key 'colour'" in done.stderr) == (3, True)


@pytest.mark.parametrize("name", sorted(EXPECTED_COMMANDS - {"install", "uninstall"}))
def test_a_command_outside_of_a_repository_ends_with_4(tmp_path: Path, name: str) -> None:
    guests = {"stop": ["www"], "start": ["www"], "rollback": ["www"]}
    done = run(COMMAND, name, *guests.get(name, []), cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("mirage-hooks: . is not in a git repository\n")


def test_a_state_folder_that_others_may_write_ends_with_6(deployed: Site) -> None:
    deployed.state.folder.chmod(0o777)
    code = deployed.command("deploy", check=False).returncode
    deployed.state.folder.chmod(0o700)
    assert code == 6


CRASH = """
import click
from mirage_hooks.installer.cli import cli, main
@cli.command()
def crash() -> None:
    raise ZeroDivisionError("a bug")
main()
"""


@pytest.fixture
def crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "subprocess.CompletedProcess[str]":
    """How a command ends that has a bug."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return run(sys.executable, "-I", "-c", CRASH, "crash", cwd=tmp_path, check=False)


def test_a_bug_ends_with_70(crash: "subprocess.CompletedProcess[str]") -> None:
    assert (crash.returncode, crash.stdout) == (70, "")


def test_a_bug_is_told_in_one_line_that_names_a_log(
    crash: "subprocess.CompletedProcess[str]", tmp_path: Path
) -> None:
    (log,) = tmp_path.glob("mirage-hooks-bug-*.log")
    assert crash.stderr == (
        f"mirage-hooks: this is a bug of mirage-hooks; the log to report: {log}\n"
    )


@pytest.mark.usefixtures("crash")
def test_the_log_of_a_bug_has_the_traceback(tmp_path: Path) -> None:
    (log,) = tmp_path.glob("mirage-hooks-bug-*.log")
    assert "ZeroDivisionError: a bug" in log.read_text()


@pytest.fixture
def interrupted(site: Site) -> "subprocess.CompletedProcess[str]":
    """How a deploy ends that is interrupted while its guest comes up."""
    site.args = ["--delay=1500"]
    site.publish()
    site.pull()
    site.install()
    process = subprocess.Popen(
        # A background job of a shell, as which the tests may run, is born to ignore SIGINT.
        ["env", "--default-signal=INT", COMMAND, "deploy"],
        cwd=site.clone,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(site.live)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    return subprocess.CompletedProcess(["deploy"], process.returncode, stdout, stderr)


def test_an_interrupted_deploy_ends_with_130(
    interrupted: "subprocess.CompletedProcess[str]",
) -> None:
    assert interrupted.returncode == 130


def test_an_interrupted_deploy_says_that_it_goes_on(
    interrupted: "subprocess.CompletedProcess[str]",
) -> None:
    said = interrupted.stderr.strip()
    assert said == "the deploy goes on; `mirage-hooks logs -f` follows it"


@pytest.mark.usefixtures("interrupted")
def test_an_interrupted_deploy_goes_on(site: Site) -> None:
    wait_for(lambda: site.outcomes() == ["healthy"])
    assert site.page() == "one"


# Where it is printed.

SHOWING = [("status",), ("history",), ("doctor",), ("plan",), ("logs",), ("logs", "www")]


@pytest.mark.parametrize("arguments", SHOWING)
def test_there_are_no_escape_sequences_in_a_pipe(
    deployed: Site, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in deployed.command(*arguments).stdout


def test_there_are_no_escape_sequences_in_the_help_in_a_pipe(tmp_path: Path) -> None:
    assert "\x1b" not in run(COMMAND, "--help", cwd=tmp_path).stdout


def test_a_healthy_guest_is_coloured_on_a_terminal(deployed: Site) -> None:
    _, screen = on_terminal(COMMAND, "status", cwd=deployed.clone)
    assert coloured(screen, "healthy")


def test_a_broken_hook_is_coloured_on_a_terminal(deployed: Site) -> None:
    (deployed.clone / ".git" / "hooks" / "post-merge").unlink()
    _, screen = on_terminal(COMMAND, "doctor", cwd=deployed.clone)
    assert coloured(screen, "failed")


def test_a_table_on_a_terminal_says_what_it_says_in_a_pipe(deployed: Site) -> None:
    _, screen = on_terminal(COMMAND, "history", cwd=deployed.clone)
    words = re.sub(r"\x1b\[[0-9;]*m", "", screen).lower().split()
    assert words == deployed.command("history").stdout.lower().split()


def test_nothing_is_coloured_for_who_wants_no_colour(deployed: Site) -> None:
    _, screen = on_terminal(COMMAND, "status", cwd=deployed.clone, NO_COLOR="1")
    assert not coloured(screen, "healthy")


@pytest.mark.parametrize("arguments", [("status",), ("history",), ("plan",), ("doctor",)])
def test_json_has_no_escape_sequences_on_a_terminal(
    deployed: Site, arguments: tuple[str, ...]
) -> None:
    _, screen = on_terminal(COMMAND, *arguments, "--json", cwd=deployed.clone)
    assert (ESCAPE in screen, json.loads(screen) != []) == (False, True)


def test_an_uninstall_on_a_terminal_asks_first(site: Site) -> None:
    site.install()
    _, screen = on_terminal(COMMAND, "uninstall", cwd=site.clone, typed="n\n")
    assert f"Take mirage-hooks out of {site.clone}?" in screen


def test_an_uninstall_that_is_declined_removes_nothing(site: Site) -> None:
    site.install()
    code, _ = on_terminal(COMMAND, "uninstall", cwd=site.clone, typed="n\n")
    assert (code != 0, site.state.host_file.exists()) == (True, True)


def test_an_uninstall_that_is_agreed_to_is_done(site: Site) -> None:
    site.install()
    code, _ = on_terminal(COMMAND, "uninstall", cwd=site.clone, typed="y\n")
    assert (code, site.state.folder.exists()) == (0, False)


def test_an_uninstall_with_yes_does_not_ask(site: Site) -> None:
    site.install()
    code, _ = on_terminal(COMMAND, "uninstall", "--yes", cwd=site.clone)
    assert code == 0


def test_an_error_goes_to_standard_error_only(site: Site) -> None:
    done = site.command("status", check=False)
    assert (done.stdout, done.stderr.startswith("mirage-hooks: ")) == ("", True)


# JSON.

KEYS: dict[str, list[str]] = {
    "plan": ["branch", "commit", "actions"],
    "status": [
        *["repository", "branch", "commit", "behind", "last_fetch"],
        *["converging", "paused", "problem", "damaged", "guests"],
    ],
}


def read_json(site: Site, *arguments: str) -> Any:
    return json.loads(site.command(*arguments, "--json", check=False).stdout)


@pytest.mark.parametrize("name", KEYS)
def test_json_has_stable_keys(deployed: Site, name: str) -> None:
    assert list(read_json(deployed, name)) == KEYS[name]


def test_the_actions_of_a_plan_have_stable_keys(deployed: Site) -> None:
    actions = read_json(deployed, "plan")["actions"]
    assert [list(action) for action in actions] == [["guest", "verb", "reason", "problem"]]


def test_the_findings_of_the_doctor_have_stable_keys(deployed: Site) -> None:
    keys = {tuple(finding) for finding in read_json(deployed, "doctor")}
    assert keys == {("level", "subject", "finding", "mend")}


def test_json_names_letters_of_any_kind_as_they_are(site: Site, tmp_path: Path) -> None:
    site.clone = tmp_path / "Jürgen 日本"
    run("git", "clone", "-q", str(site.upstream), str(site.clone), cwd=tmp_path)
    site.install()
    assert read_json(site, "status")["repository"] == str(site.clone)


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_what_is_shown_needs_no_locale(
    site: Site, tmp_path: Path, locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANG", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONUTF8"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", locale)
    site.clone = tmp_path / "Jürgen"
    run("git", "clone", "-q", str(site.upstream), str(site.clone), cwd=tmp_path)
    site.install()
    done = subprocess.run([COMMAND, "plan"], cwd=site.clone, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# Pipes whose reader has gone.


@pytest.fixture
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python write when it likes, as it does where nobody asks for anything else."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def write_to_nobody(site: Site, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command whose output nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run(
            [COMMAND, *arguments],
            cwd=site.clone,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)


PRINTING = [("history",), ("status",), ("doctor",), ("logs", "www")]


@pytest.mark.usefixtures("buffered")
@pytest.mark.parametrize("arguments", PRINTING)
def test_a_reader_that_has_gone_leaves_no_traceback(
    deployed: Site, arguments: tuple[str, ...]
) -> None:
    assert write_to_nobody(deployed, *arguments).stderr == b""


@pytest.mark.usefixtures("buffered")
@pytest.mark.parametrize("arguments", PRINTING)
def test_a_reader_that_has_gone_is_no_fault_of_a_guest(
    deployed: Site, arguments: tuple[str, ...]
) -> None:
    assert write_to_nobody(deployed, *arguments).returncode == 0


@pytest.mark.usefixtures("buffered")
def test_head_of_a_long_list_leaves_no_traceback(deployed: Site) -> None:
    for _ in range(3):
        deployed.command("reboot", "www")
    command = f"'{COMMAND}' history | head -1"
    done = subprocess.run(
        ["sh", "-c", command], cwd=deployed.clone, capture_output=True, check=True, text=True
    )
    assert (done.stdout.split()[:2], done.stderr) == (["GUEST", "GENERATION"], "")


@pytest.mark.usefixtures("buffered")
def test_a_full_disk_is_no_success(deployed: Site) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "status"],
            cwd=deployed.clone,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode != 0


# Completion.


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(tmp_path: Path, shell: str) -> None:
    done = run(COMMAND, "completion", shell, cwd=tmp_path)
    assert f"_MIRAGE_HOOKS_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_its_shell_takes(tmp_path: Path, shell: str) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed here")
    script = tmp_path / "script"
    script.write_text(run(COMMAND, "completion", shell, cwd=tmp_path).stdout)
    run(program, "-n", str(script), cwd=tmp_path)


def test_completion_of_another_shell_is_a_usage_error(tmp_path: Path) -> None:
    assert run(COMMAND, "completion", "tcsh", cwd=tmp_path, check=False).returncode == 2


# The words so far, for each shell: bash and zsh are told the position of the last, fish the word.
REQUESTS = {
    "bash": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
    "zsh": lambda words: {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)},
    "fish": lambda words: {
        "COMP_WORDS": words.rpartition(" ")[0],
        "COMP_CWORD": words.split()[-1],
    },
}


def complete(folder: Path, shell: str, words: str) -> list[str]:
    """Return what a shell is offered for a half-written command line."""
    instruction = {"_MIRAGE_HOOKS_COMPLETE": f"{shell}_complete"}
    done = subprocess.run(
        [COMMAND],
        cwd=folder,
        env={**os.environ, **instruction, **REQUESTS[shell](words)},
        capture_output=True,
        check=True,
        text=True,
    )
    return re.split(r"[,\n\t]", done.stdout)


@pytest.mark.parametrize("shell", REQUESTS)
def test_commands_complete(tmp_path: Path, shell: str) -> None:
    assert "rollback" in complete(tmp_path, shell, "mirage-hooks roll")


@pytest.mark.parametrize("command", ["reboot", "stop", "start", "rollback", "history", "logs"])
@pytest.mark.parametrize("shell", REQUESTS)
def test_guest_names_complete(deployed: Site, shell: str, command: str) -> None:
    assert "www" in complete(deployed.clone, shell, f"mirage-hooks {command} w")


def test_guest_names_complete_in_a_repository_that_is_named(deployed: Site, tmp_path: Path) -> None:
    words = f"mirage-hooks -C {deployed.clone} logs w"
    assert "www" in complete(tmp_path, "bash", words)


def test_guest_names_that_do_not_begin_so_are_not_offered(deployed: Site) -> None:
    assert "www" not in complete(deployed.clone, "bash", "mirage-hooks logs x")


def test_outside_of_a_repository_no_guest_completes(tmp_path: Path) -> None:
    assert set(complete(tmp_path, "bash", "mirage-hooks logs w")) == {""}
