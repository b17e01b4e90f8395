"""What `gc` and deploys collect, what can be gone back to, and what history tells of the rest."""

import json

import pytest

from mirage_hooks.boot import history
from mirage_hooks.boot.keep import RECENT
from support import Site, collect_killed_at, past_generation, record, run, wait_for

OLD = 5  # generations from before the first deploy that these tests see collected
PINS = "refs/mirage-hooks"
REQUEST = '{"origin": "test", "retry": true}'

CONVERGE = """
from mirage_hooks.boot import converge
converge.main()
"""


def pins(site: Site) -> set[str]:
    """Return the commits that are pinned in the clone."""
    found = site.git("for-each-ref", "--format=%(objectname)", PINS).stdout
    return set(found.split())


def stored(site: Site) -> set[str]:
    """Return the images that are stored."""
    return {path.name for path in site.state.store.iterdir() if path.is_file()}


def numbers(site: Site) -> list[int]:
    """Return the generations that `history` tells of."""
    told = json.loads(site.command("history", "-n", "1000", "--json").stdout)
    return [row["generation"] for row in told]


def keep(site: Site, count: int) -> None:
    """Have the host keep so many healthy states."""
    text = site.state.host_file.read_text()
    site.state.host_file.write_text(f"keep = {count}\n{text}")


@pytest.fixture
def old(installed: Site) -> Site:
    """A clone with a past: its first deploy collects what is older than the newest few."""
    commit = installed.git("rev-parse", "HEAD").stdout.strip()
    for number in range(1, RECENT + OLD):
        record(installed.state, past_generation(number, "a" * 64, commit))
    installed.deploy()
    return installed


# What a deploy collects.


def test_a_deploy_collects_what_is_old(old: Site) -> None:
    assert old.state.numbers("www") == list(range(OLD + 1, RECENT + OLD + 1))


def test_history_tells_of_what_was_collected(old: Site) -> None:
    assert numbers(old) == list(range(RECENT + OLD, 0, -1))


def test_history_shows_as_much_as_is_asked_for(old: Site) -> None:
    told = json.loads(old.command("history", "-n", str(RECENT + 1), "--json").stdout)
    assert [row["collected"] for row in told] == [False] * RECENT + [True]


def test_logs_of_what_was_collected_say_so(old: Site) -> None:
    done = old.command("logs", "www", "--generation", "1", check=False)
    assert (done.returncode, "generation 1 of www was collected" in done.stderr) == (3, True)


def test_rollback_to_what_was_collected_names_what_is_there(old: Site) -> None:
    done = old.command("rollback", "www", "--to", "1", check=False)
    assert done.returncode == 3
    assert "www has no healthy generation 1 any more" in done.stderr
    assert f"these were healthy: {OLD + 1}, " in done.stderr


def test_a_deploy_pins_what_can_be_gone_back_to(twice: Site) -> None:
    made = [one.provenance.commit for one in twice.state.generations("www")]
    assert pins(twice) == set(made)


def test_a_deploy_keeps_as_many_states_as_the_host_says(twice: Site) -> None:
    keep(twice, 2)
    twice.publish("three")
    twice.pull()
    kept = [one.boot.image for one in twice.state.generations("www")][1:]
    assert (stored(twice), len(pins(twice))) == (set(kept), 2)


def test_a_pull_that_changes_nothing_that_runs_collects_nothing(twice: Site) -> None:
    keep(twice, 1)
    twice.publish("two")
    twice.pull()
    assert len(stored(twice)) == 2


def test_what_is_pinned_by_hand_outlives_every_collection(twice: Site) -> None:
    keep(twice, 1)
    twice.command("rollback", "www")
    twice.command("gc")
    twice.command("reboot")
    assert (twice.page(), twice.command("deploy").returncode) == ("one", 0)


def test_a_fault_in_collecting_fails_no_deploy(twice: Site) -> None:
    lock = twice.clone / ".git" / "refs" / "mirage-hooks" / "keep"
    for path in lock.iterdir():
        (lock / f"{path.name}.lock").touch()
    keep(twice, 1)
    twice.publish("three")
    pull = twice.pull()
    assert "what is not needed any more was not removed: git cannot update refs" in pull.stderr
    assert "done: www runs as it should" in pull.stderr


# What a rollback needs.


@pytest.fixture
def forgotten(twice: Site) -> Site:
    """A clone whose upstream was force-pushed, and whose own history was cleaned up."""
    run("git", "checkout", "-q", "--orphan", "anew", cwd=twice.upstream)
    twice.publish("three")
    run("git", "branch", "-q", "-M", "anew", "main", cwd=twice.upstream)
    twice.git("fetch", "-q")
    twice.git("reset", "-q", "--hard", "origin/main")
    twice.git("reflog", "expire", "--expire=now", "--all")
    return twice


def remove_image(site: Site, generation: int) -> None:
    """Remove the image of a generation from the store, by hand."""
    (one,) = [one for one in site.state.generations("www") if one.number == generation]
    (site.state.store / one.boot.image).unlink()


def test_rollback_boots_what_the_upstream_never_had(forgotten: Site) -> None:
    forgotten.git("gc", "-q", "--prune=now")
    remove_image(forgotten, 1)
    forgotten.command("rollback", "www")
    assert forgotten.page() == "one"


@pytest.fixture
def lost(forgotten: Site) -> Site:
    """The same, without the pins: the first image is nowhere any more."""
    for commit in pins(forgotten):
        forgotten.git("update-ref", "-d", f"{PINS}/keep/{commit}")
    # What the work tree's history keeps has to go, too: the two have nothing in common but bytes.
    (forgotten.upstream / "unix").rename(forgotten.upstream.parent / "unix.old")
    run("git", "commit", "-qam", "no image", "--amend", cwd=forgotten.upstream)
    forgotten.git("fetch", "-q")
    forgotten.git("reset", "-q", "--hard", "origin/main")
    forgotten.git("reflog", "expire", "--expire=now", "--all")
    forgotten.git("gc", "-q", "--prune=now")
    remove_image(forgotten, 1)
    return forgotten


def test_rollback_to_an_image_that_is_nowhere_is_one_error(lost: Site) -> None:
    done = lost.command("rollback", "www", check=False)
    assert done.returncode == 4
    assert "www: image " in done.stderr
    assert "is gone: it is not stored any more" in done.stderr
    assert done.stderr.count("mirage-hooks: ") == 1


def test_rollback_to_an_image_that_is_nowhere_changes_nothing(lost: Site) -> None:
    lost.command("rollback", "www", check=False)
    assert (lost.page(), lost.state.intent("www"), lost.outcomes()) == (
        "two",
        None,
        ["ended", "healthy"],
    )


def test_a_commit_that_is_gone_is_told_of_once(lost: Site) -> None:
    assert "no longer in the repository: " in lost.command("gc").stdout
    assert "no longer in the repository: " not in lost.command("gc").stdout


# gc.


def test_gc_says_what_it_removed(twice: Site) -> None:
    keep(twice, 1)
    assert "images: 1 removed, " in twice.command("gc").stdout


def test_gc_without_anything_to_remove_says_so(twice: Site) -> None:
    assert twice.command("gc").stdout == "nothing to remove\n"


def test_gc_disturbs_nothing_that_runs(twice: Site) -> None:
    monitor = twice.monitor()
    keep(twice, 1)
    twice.command("gc")
    assert (twice.page(), twice.monitor()) == ("two", monitor)


def test_gc_where_nothing_was_ever_deployed_removes_nothing(installed: Site) -> None:
    assert installed.command("gc").stdout == "nothing to remove\n"


# Killed.


def test_a_deploy_killed_at_any_step_of_its_collecting_is_followed_by_one_that_works(
    old: Site,
) -> None:
    keep(old, 1)
    pages = ["one", "two"]
    step, ended = 0, -9
    while ended != 0:
        step += 1
        page = pages[step % 2]
        old.publish(page)
        old.pull_unhooked()
        request = (old.clone / ".git", f"killed-{step}", REQUEST)
        ended = collect_killed_at(step, CONVERGE, *request)
        assert ended in {0, -9}
        assert old.page() == page
        told = sorted(past.generation.number for past in history.ever(old.state, "www"))
        assert told == list(range(1, old.state.newest("www") + 1))
    assert step > 5
    old.command("reboot")
    wait_for(lambda: old.page() == page)
    assert len(stored(old)) == 1
    assert len(pins(old)) == 1
    assert not list((old.state.folder / "guests" / "www").glob(".*"))
