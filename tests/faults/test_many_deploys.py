"""Two hundred deploys, one after the other: nothing grows."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from faulty import FULL, QUICK, Faulty, wrong_with
from networked import NetSite, on
from support import run

PAGES = ("one", "two", "three", "four", "five")
DEPLOYS = 200 if FULL else 30
# By then all is there that is kept: generations, runs, states, images.
SETTLED = 70 if FULL else 16


@dataclass(frozen=True)
class Size:
    """What could grow. Of the logs, which are rotated, the bytes are left out."""

    processes: int
    descriptors: int
    taps: int
    refs: int
    files: int
    kilobytes: int


def measure(faulty: Faulty) -> Size:
    """Return what there is now."""
    net = faulty.site
    assert isinstance(net, NetSite)
    state = net.state
    files = [path for path in state.folder.rglob("*") if path.is_file()]
    files += list(Path(os.environ["XDG_RUNTIME_DIR"]).rglob("*"))
    logs = {"events.jsonl", "history.jsonl"}
    return Size(
        processes=len(net.host.pids),
        descriptors=len(list(Path(f"/proc/{net.monitor().monitor.pid}/fd").iterdir())),
        taps=len(faulty.taps()),
        refs=len(run("git", "for-each-ref", cwd=net.clone).stdout.splitlines()),
        files=len(files) - len(list(state.runs.glob("*"))),
        kilobytes=sum(path.lstat().st_size for path in files if path.name not in logs) >> 10,
    )


@on("unix")
@pytest.mark.timeout(600)
def test_nothing_grows_over_many_deploys(
    net: NetSite, faulty: Faulty, record_property: Callable[[str, object], None]
) -> None:
    net.check = QUICK
    commits = [net.publish(page) for page in PAGES]
    net.git("fetch", "-q")
    seconds, first = [], None
    for turn in range(DEPLOYS):
        faulty.point(commits[turn % len(PAGES)])
        began = time.monotonic()
        assert faulty.converge() == 0, faulty.said()
        seconds.append(time.monotonic() - began)
        if turn == SETTLED:
            assert wrong_with(faulty, PAGES[turn % len(PAGES)]) == []
            first = measure(faulty)
    assert wrong_with(faulty, PAGES[(DEPLOYS - 1) % len(PAGES)]) == []
    last = measure(faulty)
    half = len(seconds) // 2
    early, late = statistics.median(seconds[:half]), statistics.median(seconds[half:])
    text = f"{DEPLOYS} deploys: {first} after {SETTLED}, {last} at the end"
    record_property("faults", f"{text}; {early * 1000:.0f} ms each, then {late * 1000:.0f} ms")
    assert first is not None
    assert last.kilobytes <= first.kilobytes + 16
    assert (last.processes, last.descriptors, last.taps, last.refs, last.files) == (
        first.processes,
        first.descriptors,
        first.taps,
        first.refs,
        first.files,
    )
    assert late <= early * 1.5
