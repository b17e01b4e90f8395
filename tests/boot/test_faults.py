"""The pauses between tries of what this host could not prepare."""

import pytest

from mirage_hooks.boot import faults
from mirage_hooks.boot.errors import HostError, RepositoryError
from mirage_hooks.boot.faults import Fault

ERROR = HostError("www: bridge br9 is missing", "make it")
NOW = 1_000_000.0


def after(count: int, digest: str = "d", host: str = "h") -> Fault:
    """Return what is left of so many tries in vain, the last of them now."""
    fault = None
    for _ in range(count):
        fault = faults.again(fault, digest, host, ERROR, NOW)
    assert fault is not None
    return fault


@pytest.mark.parametrize(
    ("count", "pause"), [(1, 60), (2, 120), (3, 240), (6, 1920), (7, 3600), (5000, 3600)]
)
def test_the_pause_doubles_from_a_minute_to_an_hour(count: int, pause: float) -> None:
    fault = after(count)
    assert (fault.count, fault.next) == (count, NOW + pause)


@pytest.mark.parametrize("change", [{"digest": "other"}, {"host": "other"}])
def test_what_is_new_begins_with_the_first_pause(change: dict[str, str]) -> None:
    words = {"digest": "d", "host": "h", **change}
    assert faults.again(after(5), error=ERROR, now=NOW, **words).count == 1


@pytest.mark.parametrize(
    ("digest", "host", "later", "postponed"),
    [
        ("d", "h", 0.0, True),
        ("d", "h", 59.0, True),
        ("d", "h", 60.0, False),
        ("d", "h", 1e9, False),
        ("other", "h", 0.0, False),
        ("d", "other", 0.0, False),
    ],
)
def test_a_try_is_postponed_until_its_time_while_nothing_is_new(
    digest: str, host: str, later: float, postponed: bool
) -> None:
    assert after(1).postpones(digest, host, NOW + later) is postponed


@pytest.mark.parametrize("count", [1, 5, 50])
def test_a_clock_that_was_set_back_makes_nobody_wait_longer_than_an_hour(count: int) -> None:
    fault = after(count)
    assert not fault.postpones("d", "h", NOW - 365 * 86400)
    assert not fault.postpones("d", "h", fault.next - 3601)


@pytest.mark.parametrize("error", [ERROR, RepositoryError("www: image is gone", "push it")])
def test_what_was_said_is_said_again_with_the_same_exit_code(error: HostError) -> None:
    again = faults.again(None, "d", "h", error, NOW).error
    assert (str(again), again.exit_code) == (str(error), error.exit_code)


def test_when_it_is_tried_again_is_told_in_utc() -> None:
    assert "tried again from 1970-01-12T13:47:40+00:00 on" in after(1).when
