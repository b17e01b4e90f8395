"""The operator's word, as it is told."""

from mirage_hooks.boot.intent import Pause


def test_a_pause_reads_as_since_by_and_why() -> None:
    paused = Pause("moving the disks", 1700000000.0, "mirage")
    assert str(paused) == "paused since 2023-11-14T22:13:20+00:00 by mirage: moving the disks"
