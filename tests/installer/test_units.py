"""Units of systemd as text: names and words as systemd reads them."""

import shutil
import subprocess

import pytest

from mirage_hooks.boot.errors import HostError
from mirage_hooks.installer import units

TEMPLATE = "mirage-hooks-poll@.timer"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-escape") is None, reason="there is no systemd-escape"
)


def systemd_escapes(path: str) -> str:
    done = subprocess.run(
        ["systemd-escape", "--path", "--", path], capture_output=True, text=True, check=True
    )
    return done.stdout.removesuffix("\n")


def test_an_instance_is_named_after_the_path() -> None:
    assert units.instance(TEMPLATE, "/srv/site") == "mirage-hooks-poll@srv-site.timer"


@needs_systemd
@pytest.mark.parametrize(
    "path",
    ["/", "/srv/a b", "/srv/a-b.c_d:e", "/.hidden/.x", "/Jürgen 日本", "/a%n$x\\y'\"", "/-x"],
)
def test_a_path_is_escaped_as_systemd_does(path: str) -> None:
    assert units.escape(path) == systemd_escapes(path)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/opt/x/mirage-hooks", ":/opt/x/mirage-hooks"),
        ("/opt/a b/x", '":/opt/a b/x"'),
        ("/opt/100%/x", ":/opt/100%%/x"),
    ],
)
def test_a_program_is_one_word_of_a_unit(path: str, word: str) -> None:
    assert units.quote(path) == word


@pytest.mark.parametrize("name", ['"q"', "it's", "a\\b", "a\nb"])
def test_what_systemd_takes_for_no_program_is_refused(name: str) -> None:
    with pytest.raises(HostError, match="cannot be run by a unit"):
        units.quote(f"/opt/{name}/mirage-hooks")


@pytest.mark.parametrize(("seconds", "delay"), [(30, "3s"), (300, "30s"), (86400, "30s")])
def test_the_delay_is_a_part_of_the_interval_and_half_a_minute_at_most(
    seconds: float, delay: str
) -> None:
    timer = units.render("/x", "poll", f"{seconds}s", seconds)[TEMPLATE]
    assert f"RandomizedDelaySec={delay}\n" in timer


@pytest.mark.parametrize(("seconds", "first"), [(10, "10s"), (300, "60s")])
def test_the_first_poll_comes_within_a_minute_of_the_boot(seconds: float, first: str) -> None:
    timer = units.render("/x", "poll", f"{seconds}s", seconds)[TEMPLATE]
    assert f"OnActiveSec={first}\n" in timer
