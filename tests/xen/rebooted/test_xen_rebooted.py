"""After a reboot of the host that before_reboot.py has prepared."""

import time
from collections.abc import Iterator

import pytest

from in_dom0 import in_dom0
from mirage_hooks.boot import survey
from practice import HELD, REBOOTED, SECONDS, Took
from support import leave_state, wait_for

pytestmark = in_dom0


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """End what was booted."""
    yield
    for site in (REBOOTED, HELD):
        leave_state(site.state)


def test_up_boots_what_should_run_and_not_what_was_held(took: Took) -> None:
    assert REBOOTED.domains() + HELD.domains() == []
    began = time.monotonic()
    REBOOTED.command("up")
    wait_for(lambda: REBOOTED.page() == "one", SECONDS)
    took("up after a reboot of the host, to first reply", time.monotonic() - began)
    HELD.command("up")
    assert survey.look(HELD.state, HELD.name).live is None
    assert HELD.domains() == []
