"""Many publish at once: every image lands, and no commit is lost."""

import bz2
import subprocess
from pathlib import Path

from mirage_hooks.boot import artifact
from publisher import SCRIPT, Publisher, make_publisher
from support import run

COUNT = 20


def content(guest: str) -> bytes:
    return SCRIPT + f"# {guest}\n".encode()


def start(job: Publisher, guest: str, commit: str, *options: str) -> subprocess.Popen[str]:
    """Publish, and wait for nothing."""
    return subprocess.Popen(
        job.command(*options, content=content(guest), guest=guest, commit=commit),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def failures(running: list[subprocess.Popen[str]]) -> list[str]:
    """Return what those say that failed."""
    said = [(one.communicate(timeout=110)[1], one.returncode) for one in running]
    return [text for text, code in said if code]


def assert_all_landed(job: Publisher, guests: list[str]) -> None:
    """Fail where the pointer does not lead to the image of each guest, or a commit is missing."""
    tip = job.tip
    for guest in guests:
        blob = artifact.locate(tip, f"unix/{{latest}}/{guest}.unix.bz2").blob
        with blob.open() as stream:
            assert bz2.decompress(stream.read()) == content(guest)
    log = run("git", "log", "--format=%(trailers:key=Guest,valueonly)", "main", cwd=job.upstream)
    assert sorted(log.stdout.split()) == guests


def test_twenty_at_once_all_land(job: Publisher, tmp_path: Path) -> None:
    guests = [f"guest{number:02}" for number in range(COUNT)]
    jobs = [make_publisher(tmp_path, guest) for guest in guests]
    running = [
        start(one, guest, f"{number:040x}")
        for number, (one, guest) in enumerate(zip(jobs, guests, strict=True), 1)
    ]
    assert failures(running) == []
    assert_all_landed(job, guests)


def test_those_that_share_a_clone_do_not_hinder_each_other(job: Publisher, tmp_path: Path) -> None:
    guests = [f"guest{number}" for number in range(4)]
    running = []
    for number, guest in enumerate(guests, 1):
        shared = Publisher(tmp_path, job.clone)
        image = shared.image(content(guest), guest)
        command = shared.command(guest=guest, commit=f"{number:040x}")
        command[4] = image
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    assert failures(running) == []
    assert_all_landed(job, guests)
