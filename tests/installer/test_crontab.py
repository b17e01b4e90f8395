"""Our lines in a crontab, and everybody else's, which stay."""

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_hooks.boot.errors import ConfigError, HostError
from mirage_hooks.installer import crontab
from mirage_hooks.installer.job import Job

SCRIPT = ".git/mirage-hooks/poll"
JOB = Job("/opt/mirage-hooks/bin/mirage-hooks", "/srv/deployment", SCRIPT, "0000000000ff")
OTHER = Job(JOB.program, "/srv/other", SCRIPT, "0000000000aa")
THEIRS = "MAILTO=x@example.org\n# theirs\n*/5 * * * *  backup\t--all  \n"


def command_of(line: str) -> str:
    """Return what cron gives to sh of a line, as entry.c and do_command.c of cron have it."""
    rest = line.split(" ", 1)[1] if line.startswith("@") else line.split(" ", 5)[5]
    return rest.replace("\\%", "%")


# When.


@pytest.mark.parametrize(
    ("seconds", "fields"),
    [
        (60, "* * * * *"),
        (300, "3-59/5 * * * *"),
        (420, "6-59/7 * * * *"),
        (59 * 60, "13-59/59 * * * *"),
        (3600, "13 * * * *"),
        (2 * 3600, "13 1-23/2 * * *"),
        (23 * 3600, "13 3-23/23 * * *"),
        (86400, "13 3 * * *"),
    ],
)
def test_an_interval_is_shifted_by_a_number(seconds: float, fields: str) -> None:
    assert crontab.when(seconds, 13 + 3 * 60) == fields


@pytest.mark.parametrize("seconds", [1, 30, 90, 60.5, 90 * 60, 25 * 3600, 2 * 86400])
def test_an_interval_that_cron_does_not_have_is_refused_with_a_way_out(seconds: float) -> None:
    with pytest.raises(ConfigError, match="cron cannot poll") as caught:
        crontab.when(seconds, 0)
    assert "mirage-hooks poll --every" in caught.value.hint


@given(st.integers(1, 59), st.integers(0, 2**48 - 1))
def test_every_minute_of_an_interval_is_in_the_hour(minutes: int, number: int) -> None:
    first, _, step = crontab.when(minutes * 60, number).split()[0].partition("-59/")
    assert first == "*" if minutes == 1 else 0 <= int(first) < int(step) == minutes


# What.


def test_there_is_one_comment_a_poll_and_a_boot() -> None:
    comment, poll, up = crontab.render(JOB, 300).splitlines()
    assert comment.startswith("# /srv/deployment is polled")
    assert poll.startswith("0-59/5 * * * * sleep 15; /srv/deployment/.git/mirage-hooks/poll #")
    assert up.startswith("@reboot /opt/mirage-hooks/bin/mirage-hooks -C /srv/deployment up ")


@pytest.mark.parametrize("name", ["a b", "100%n", "it's", '"q"', "$HOME `id`", "Jürgen", "#x"])
def test_a_shell_reads_the_command_back_whatever_the_paths(name: str) -> None:
    job = Job(f"/opt/{name}/mirage-hooks", f"/srv/{name}", SCRIPT, JOB.identity)
    _, poll, up = crontab.render(job, 300).splitlines()
    assert shlex.split(command_of(poll), comments=True)[2:] == [f"/srv/{name}/{SCRIPT}"]
    assert shlex.split(command_of(up), comments=True) == [job.program, "-C", job.path, "up"]


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\rb"])
def test_a_path_that_cannot_stand_in_a_crontab_is_refused(name: str) -> None:
    with pytest.raises(HostError, match="cannot stand in a crontab"):
        crontab.render(Job(JOB.program, f"/srv/{name}", SCRIPT, JOB.identity), 300)


def test_a_percent_sign_is_no_line_end() -> None:
    job = Job(JOB.program, "/srv/100%", SCRIPT, JOB.identity)
    assert "/srv/100\\%/" in crontab.render(job, 300).splitlines()[1]


def test_the_mark_is_a_comment_to_the_shell() -> None:
    line = crontab.render(Job("echo", "/x", SCRIPT, JOB.identity), 300).splitlines()[2]
    done = subprocess.run(["sh", "-c", command_of(line)], capture_output=True, check=True)
    assert done.stdout == b"-C /x up\n"


# Whose.


def test_what_is_taken_out_is_ours_alone() -> None:
    others = crontab.render(OTHER, 60)
    ours = crontab.render(JOB, 300)
    assert crontab.without(f"{THEIRS}{ours}{others}", JOB) == f"{THEIRS}{others}"


def test_our_lines_are_found_wherever_they_were_moved() -> None:
    comment, poll, up = crontab.render(JOB, 300).splitlines(keepends=True)
    assert crontab.without(f"{up}{THEIRS}{poll}x\n{comment}", JOB) == f"{THEIRS}x\n"


@given(st.text(st.characters(blacklist_characters="\0")))
def test_every_other_line_stays_byte_for_byte(theirs: str) -> None:
    whole = theirs if theirs.endswith("\n") or not theirs else f"{theirs}\n"
    assert crontab.without(whole + crontab.render(JOB, 300), JOB) == whole


def test_the_lines_that_poll_and_boot_are_found() -> None:
    text = THEIRS + crontab.render(OTHER, 60) + crontab.render(JOB, 300)
    poll, up = crontab.find(text, JOB)
    assert poll is not None
    assert "/srv/deployment/.git/mirage-hooks/poll" in poll
    assert up is not None
    assert "-C /srv/deployment up" in up


def test_where_nothing_polls_no_line_is_found() -> None:
    assert crontab.find(THEIRS + crontab.render(OTHER, 60), JOB) == (None, None)


@pytest.mark.parametrize("name", ["x", "a b", "100%n"])
def test_the_program_of_the_line_at_boot_is_told(name: str) -> None:
    job = Job(f"/opt/{name}/mirage-hooks", "/srv/x", SCRIPT, JOB.identity)
    _, up = crontab.find(crontab.render(job, 300), job)
    assert up is not None
    assert crontab.program(up) == job.program
