"""The process that runs a guest, as its monitor has it."""

import os
from collections.abc import Callable
from pathlib import Path

from mirage_hooks.boot.console import ConsoleLog
from mirage_hooks.boot.control import Orders, RestartPolicy
from mirage_hooks.boot.tender import Tender
from support import USER, free_port


def test_a_tender_that_was_let_go_has_executed_its_guest(
    compiled: Callable[[str], Path], tmp_path: Path
) -> None:
    image = str(compiled("one"))
    orders = Orders(
        guest="www",
        generation=1,
        converge="c1",
        executable=image,
        argv=["www", "--ipv4=127.0.0.1/8", f"--port={free_port()}"],
        redact=[],
        environment={},
        files=[],
        taps=[],
        user=USER,
        socket=str(tmp_path / "socket"),
        restart=RestartPolicy(),
        console_bytes=1 << 20,
        events=str(tmp_path / "events"),
        settled=str(tmp_path / "settled"),
    )
    allowed = os.sched_getaffinity(0)
    # On one processor only one of the two can go first.
    os.sched_setaffinity(0, {min(allowed)})
    try:
        tender = Tender(orders, ConsoleLog(str(tmp_path / "console"), 1 << 20))
        try:
            tender.go()
            assert Path(f"/proc/{tender.process.pid}/exe").readlink() == Path(image)
        finally:
            tender.end(5)
            tender.reap()
    finally:
        os.sched_setaffinity(0, allowed)
