"""A disk that is full from any step of a deploy on: what runs goes on, and it is said."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faulty import FULL, QUICK, Faulty, Report, wrong_with
from mounts import small_disk
from support import Site, leave, make_site, run

PAGES = ("one", "two")
SAMPLE = 8


@pytest.fixture
def cramped(mounts: None, tmp_path: Path, compiled: Callable[[str], Path]) -> Iterator[Faulty]:
    """A clone on a small disk of its own; its first image runs."""
    del mounts
    small_disk(tmp_path / "small", "12m")
    site = make_site(tmp_path, compiled)
    run("git", "clone", "-q", str(site.upstream), str(tmp_path / "small/clone"), cwd=tmp_path)
    site.clone = tmp_path / "small/clone"
    site.check = QUICK
    faulty = Faulty(site, tmp_path / "faulty")
    site.install()
    with faulty.serving():
        yield faulty
    leave(site)


def empty(faulty: Faulty) -> None:
    """Have room on the disk again."""
    (faulty.site.state.folder.parent / "filler").unlink()


def commits(site: Site) -> list[str]:
    """Publish an image a page, and have them all in the clone; return the commits."""
    made = [site.publish(page) for page in PAGES]
    site.git("fetch", "-q")
    return made


@pytest.mark.timeout(600)
def test_a_disk_that_fills_up_at_any_step_costs_no_guest_and_is_said(
    cramped: Faulty, record_property: Callable[[str, object], None]
) -> None:
    made = commits(cramped.site)
    for turn in (0, 1, 2):
        cramped.point(made[turn % 2])
        cramped.plan(note=True)
        cramped.take("steps")
        assert cramped.converge() == 0
    steps = [step for step in cramped.take("steps") if step.startswith("before ")]
    report = Report("deploy, unix, disk filled", len(steps))
    stride = 1 if FULL else max(1, len(steps) // SAMPLE)
    for turn, step in enumerate(dict.fromkeys(steps[::stride]), 3):
        cramped.point(made[turn % 2])
        cramped.plan(step=step, victim="disk")
        code = cramped.converge(retry=True)
        said, page = cramped.said(), cramped.page()
        if not cramped.take("struck"):
            report.missed.append(step)
            continue
        report.struck.append(step)
        cramped.plan()
        wrong = []
        if page not in PAGES:
            wrong.append(f"nobody serves while the disk is full: {said}")
        if code not in {0, 6} or (code == 6 and "no space left" not in said.lower()):
            wrong.append(f"ended with {code}: {said}")
        if "Traceback" in said:
            wrong.append(said)
        empty(cramped)
        again = cramped.converge(retry=True)
        wrong += wrong_with(cramped, PAGES[turn % 2])
        if again != 0:
            wrong.append(f"with room again it ended with {again}: {cramped.said()}")
        report.found += [f"{step}: {text}" for text in wrong]
    record_property("faults", str(report))
    print(f"{report}:\n" + "\n".join(report.struck))
    assert report.struck != []
    assert report.found == []


def test_a_full_disk_is_said_to_who_deploys(cramped: Faulty) -> None:
    made = commits(cramped.site)
    cramped.point(made[0])
    assert cramped.converge() == 0
    cramped.point(made[1])
    filler = cramped.site.state.folder.parent / "filler"
    with filler.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    deploy = cramped.site.command("deploy", check=False)
    assert deploy.returncode == 6
    assert "no space left" in deploy.stderr.lower()
    assert "Traceback" not in deploy.stdout + deploy.stderr
    assert cramped.page() == "one"
    empty(cramped)
    cramped.site.command("deploy")
    assert cramped.page() == "two"
