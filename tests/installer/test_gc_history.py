"""`gc --history`: what an existing clone is rid of, what stays, what is refused."""

import contextlib
import getpass
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faulty import FULL
from mirage_hooks.boot.errors import ConfigError, HostError, RepositoryError
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.slim import drop, promise
from mounts import small_disk
from partial_clones import fetched, here, images, let_filter
from support import Site, leave, run

# Has a program kill itself right before the Nth thing it does to make a clone small.
KILLED = """
import os, sys
from mirage_hooks.boot import slim
from mirage_hooks.installer import cli
steps, inside = int(os.environ.pop("KILL_AT")), False
def count(event, args):
    global steps
    writes = event == "open" and isinstance(args[2], int) and args[2] & os.O_WRONLY
    if inside and (event in {"os.remove", "os.rename", "subprocess.Popen"} or writes):
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), 9)
def counted(do):
    def counting(*args):
        global inside
        inside = True
        try:
            return do(*args)
        finally:
            inside = False
    return counting
slim.promise, slim.drop = counted(slim.promise), counted(slim.drop)
sys.addaudithook(count)
cli.main()
"""


@pytest.fixture
def heavy(installed: Site) -> Site:
    """A clone with four images; the last one runs, and that before can be gone back to."""
    for pages in (("two", "three"), ("four",)):
        for page in pages:
            installed.publish(page)
        installed.pull_unhooked()
        installed.deploy()
    installed.tell_host(keep=2)
    let_filter(installed)
    return installed


def slim(site: Site, check: bool = True) -> subprocess.CompletedProcess[str]:
    return site.command("gc", "--history", check=check)


def is_sound(site: Site) -> bool:
    """Whether git finds the clone whole, but for what was promised."""
    done = run("git", "fsck", "--connectivity-only", "--no-dangling", cwd=site.clone, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return True


def local_image(site: Site) -> str:
    """Commit an image that no upstream has; return its blob."""
    (site.clone / "mine.unix").write_bytes(b"mine" * 100_000)
    site.git("add", "--sparse", "mine.unix")
    site.git("commit", "-qm", "mine")
    return site.git("rev-parse", "HEAD:mine.unix").stdout.strip()


def branch_gone_upstream(site: Site) -> str:
    """Fetch an image of a branch that is deleted upstream then; return its blob."""
    run("git", "checkout", "-q", "-b", "other", cwd=site.upstream)
    site.publish("other")
    *_, image = images(site, "other")
    site.git("fetch", "-q")
    site.git("cat-file", "-e", image)
    run("git", "checkout", "-q", "main", cwd=site.upstream)
    run("git", "branch", "-q", "-D", "other", cwd=site.upstream)
    return image


def begin_anew(site: Site) -> None:
    """Have the upstream throw its history away, images and all."""
    run("git", "checkout", "-q", "--orphan", "anew", cwd=site.upstream)
    run("git", "rm", "-rq", "--cached", ".", cwd=site.upstream)
    shutil.rmtree(site.upstream / "unix")
    site.publish("five")
    run("git", "branch", "-q", "-M", "anew", "main", cwd=site.upstream)
    run("git", "reflog", "expire", "--expire=now", "--all", cwd=site.upstream)
    run("git", "gc", "-q", "--prune=now", cwd=site.upstream)


# What goes.


def test_all_images_go_but_for_those_that_can_be_gone_back_to(heavy: Site) -> None:
    slim(heavy)
    assert fetched(heavy) == [2, 3]
    assert is_sound(heavy)


def test_it_is_said_what_was_freed(heavy: Site) -> None:
    before = sum(path.stat().st_size for path in heavy.clone.rglob("objects/**/*"))
    assert "old images in git: 2 removed, " in slim(heavy).stdout
    assert sum(path.stat().st_size for path in heavy.clone.rglob("objects/**/*")) < before * 0.7


def test_images_in_packs_go_as_loose_ones_do(heavy: Site) -> None:
    heavy.git("gc", "-q")
    slim(heavy)
    assert fetched(heavy) == [2, 3]
    assert is_sound(heavy)


def test_again_there_is_nothing_to_do(heavy: Site) -> None:
    slim(heavy)
    before = here(heavy)
    assert slim(heavy).stdout == "nothing to remove\n"
    assert here(heavy) == before


def test_the_work_tree_is_left_without_images(heavy: Site) -> None:
    slim(heavy)
    assert not list(heavy.clone.rglob("www.unix"))
    assert heavy.git("status", "--porcelain").stdout == ""


def test_pulls_fetch_what_is_deployed_and_no_other_from_then_on(heavy: Site) -> None:
    slim(heavy)
    heavy.publish("five")
    heavy.publish("six")
    heavy.pull()
    assert (heavy.page(), fetched(heavy)) == ("six", [3, 5])


def test_what_runs_goes_on_and_is_settled(heavy: Site) -> None:
    heavy.command("deploy")
    monitor = heavy.monitor()
    slim(heavy)
    (heavy.upstream / "note.txt").write_text("a note\n")
    heavy.commit("a note")
    before = heavy.runs()
    heavy.pull()
    assert (heavy.page(), heavy.monitor(), heavy.runs()) == ("four", monitor, before)


# What stays.


def test_a_rollback_needs_no_server(heavy: Site) -> None:
    slim(heavy)
    for path in heavy.state.store.iterdir():
        if path.is_file():
            path.unlink()
    heavy.upstream.rename(heavy.upstream.with_name("moved"))
    heavy.command("rollback", "www")
    assert heavy.page() == "three"


def test_git_does_not_collect_what_can_be_gone_back_to(heavy: Site) -> None:
    slim(heavy)
    heavy.git("gc", "-q", "--prune=now")
    assert fetched(heavy) == [2, 3]


def test_what_was_not_pushed_stays(heavy: Site) -> None:
    mine = local_image(heavy)
    slim(heavy)
    assert mine in here(heavy)
    assert fetched(heavy) == [2, 3]
    assert is_sound(heavy)


def test_what_was_not_pushed_can_be_pushed_afterwards(heavy: Site) -> None:
    mine = local_image(heavy)
    slim(heavy)
    heavy.git("push", "-q", "--no-verify", "origin", "HEAD:refs/heads/mine")
    assert run("git", "rev-parse", "mine:mine.unix", cwd=heavy.upstream).stdout.strip() == mine


def test_what_the_upstream_has_thrown_away_stays(heavy: Site) -> None:
    old = images(heavy)
    begin_anew(heavy)
    slim(heavy)
    assert set(old) <= here(heavy)
    assert is_sound(heavy)


@pytest.mark.parametrize("before", [False, True], ids=["any clone", "a partial clone"])
def test_what_a_branch_had_that_is_gone_upstream_stays(heavy: Site, before: bool) -> None:
    if before:
        slim(heavy)
    mine = branch_gone_upstream(heavy)
    slim(heavy)
    assert mine in here(heavy)
    assert is_sound(heavy)


def test_a_partial_clone_forgets_what_was_pushed_meanwhile(heavy: Site) -> None:
    slim(heavy)
    mine = local_image(heavy)
    heavy.git("sparse-checkout", "reapply")
    heavy.git("push", "-q", "--no-verify", "origin", "HEAD:refs/heads/mine")
    slim(heavy)
    assert mine not in here(heavy)
    assert is_sound(heavy)


@pytest.fixture
def abandoned(heavy: Site) -> Site:
    """What the upstream has was asked, and nothing came of it yet."""
    heavy.git("sparse-checkout", "set", "--no-cone", "/mirage-hooks.toml")
    promise(Repository(heavy.clone), "origin")
    return heavy


def test_a_deploy_goes_by_nothing_that_was_seen_for_another_end(abandoned: Site) -> None:
    old = images(abandoned)
    begin_anew(abandoned)
    drop(Repository(abandoned.clone), frozenset())
    assert set(old) <= here(abandoned)


def test_what_was_seen_before_it_was_thrown_away_stays(abandoned: Site) -> None:
    old = images(abandoned)
    begin_anew(abandoned)
    slim(abandoned)
    assert set(old) <= here(abandoned)


def test_what_a_linked_work_tree_has_stays(heavy: Site) -> None:
    heavy.git("worktree", "add", "-q", "--detach", "../linked")
    slim(heavy)
    assert fetched(heavy) == [0, 1, 2, 3]


def test_packs_that_are_to_be_small_are_written_whole(heavy: Site) -> None:
    for name in ("a.bin", "b.bin"):
        (heavy.upstream / name).write_bytes(os.urandom(900_000))
    heavy.commit("what does not compress")
    heavy.pull("-q")
    heavy.git("config", "pack.packSizeLimit", "1m")
    slim(heavy)
    assert fetched(heavy) == [2, 3]
    assert is_sound(heavy)


def test_changes_in_the_work_tree_stay(heavy: Site) -> None:
    note = heavy.clone / "mirage-hooks.toml"
    note.write_text(note.read_text() + "# mine\n")
    (heavy.clone / "own.unix").write_text("mine\n")
    slim(heavy)
    assert note.read_text().endswith("# mine\n")
    assert (heavy.clone / "own.unix").read_text() == "mine\n"


def test_a_sparse_work_tree_stays_as_it_was_chosen(heavy: Site) -> None:
    heavy.git("sparse-checkout", "set", "--no-cone", "/mirage-hooks.toml")
    slim(heavy)
    assert heavy.git("sparse-checkout", "list").stdout == "/mirage-hooks.toml\n"


def test_a_pack_that_somebody_keeps_stays(heavy: Site) -> None:
    heavy.git("gc", "-q")
    (pack,) = (heavy.clone / ".git" / "objects" / "pack").glob("*.pack")
    pack.with_suffix(".keep").touch()
    slim(heavy)
    assert fetched(heavy) == [0, 1, 2, 3]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("packed", [True, False])
def test_killed_at_any_step_nothing_is_lost_and_the_next_does_it(heavy: Site, packed: bool) -> None:
    mine = local_image(heavy)
    if packed:
        heavy.git("gc", "-q")
    needed = {mine, *images(heavy)[2:]}
    pristine = heavy.clone.with_name("pristine")
    shutil.copytree(heavy.clone / ".git" / "objects", pristine)
    for step in itertools.count(1, 1 if FULL else 4):
        shutil.rmtree(heavy.clone / ".git" / "objects")
        shutil.copytree(pristine, heavy.clone / ".git" / "objects")
        heavy.git("config", "--unset", "remote.origin.promisor", check=False)
        ended = killed_at(heavy, step)
        assert ended in {0, -9}
        assert needed <= here(heavy), step
        assert is_sound(heavy), step
        slim(heavy)
        assert fetched(heavy) == [2, 3], step
        assert needed <= here(heavy), step
        assert is_sound(heavy), step
        if ended == 0:
            break
    assert step > 10


def killed_at(site: Site, step: int) -> int:
    """Have `gc --history` killed at its Nth step; return how it ended."""
    return subprocess.run(
        [sys.executable, "-I", "-c", KILLED, "-C", site.clone, "gc", "--history"],
        env={**os.environ, "KILL_AT": str(step)},
        stdout=subprocess.DEVNULL,
        timeout=60,
        check=False,
    ).returncode


# Refused.


@pytest.mark.parametrize("room", [0, 200 << 10], ids=["none to fetch", "none to repack"])
def test_a_full_disk_is_said_and_nothing_goes(
    mounts: None, site: Site, tmp_path: Path, room: int
) -> None:
    del mounts
    small_disk(tmp_path / "small", "12m")
    shutil.rmtree(site.clone)
    site.clone = tmp_path / "small" / "clone"
    run("git", "clone", "-q", site.upstream, site.clone, cwd=tmp_path)
    site.install("--deploy")
    for page in ("two", "three"):
        site.publish(page)
        site.pull("-q")
    let_filter(site)
    site.tell_host(keep=1)
    # What these two free is no room for packs.
    site.command("gc")
    site.git("sparse-checkout", "set", "--no-cone", "/mirage-hooks.toml")
    fill(tmp_path / "small" / "filler", room)
    done = slim(site, check=False)
    assert done.returncode in {RepositoryError.exit_code, HostError.exit_code}
    assert "no space left" in done.stderr.lower()
    assert fetched(site) == [0, 1, 2]
    (tmp_path / "small" / "filler").unlink()
    slim(site)
    assert (site.page(), fetched(site)) == ("three", [2])
    leave(site)


def fill(path: Path, room: int) -> None:
    """Fill a disk but for so many bytes."""
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        os.ftruncate(file.fileno(), max(file.tell() - room, 0))


def test_an_upstream_that_does_not_filter_is_refused_and_nothing_goes(heavy: Site) -> None:
    run("git", "config", "uploadpack.allowFilter", "false", cwd=heavy.upstream)
    config = (heavy.clone / ".git" / "config").read_text()
    done = slim(heavy, check=False)
    assert done.returncode == RepositoryError.exit_code
    assert "origin does not filter what it sends" in done.stderr
    assert (heavy.clone / ".git" / "config").read_text() == config
    assert fetched(heavy) == [0, 1, 2, 3]


def test_an_upstream_that_is_away_is_said_and_nothing_goes(heavy: Site) -> None:
    old = images(heavy)
    heavy.upstream.rename(heavy.upstream.with_name("moved"))
    done = slim(heavy, check=False)
    assert done.returncode == RepositoryError.exit_code
    assert "nothing could be fetched from origin: there is no such repository" in done.stderr
    assert set(old) <= here(heavy)


def test_without_an_upstream_nothing_goes(heavy: Site) -> None:
    heavy.git("branch", "--unset-upstream")
    done = slim(heavy, check=False)
    assert (done.returncode, "main has no upstream" in done.stderr) == (ConfigError.exit_code, True)


def test_a_branch_that_tracks_one_beside_it_has_no_upstream(heavy: Site) -> None:
    heavy.git("config", "uploadpack.allowFilter", "true")
    heavy.git("checkout", "-q", "-b", "deploy", "--track", "main")
    heavy.tell_host(branch="deploy")
    done = slim(heavy, check=False)
    assert done.returncode == ConfigError.exit_code
    assert "nobody else has the old images" in done.stderr
    assert fetched(heavy) == [0, 1, 2, 3]


@pytest.mark.parametrize("url", [".", "../clone", "{0}", "{0}/.git", "file://{0}"])
def test_a_remote_that_leads_back_here_is_no_upstream(heavy: Site, url: str) -> None:
    heavy.git("config", "uploadpack.allowFilter", "true")
    heavy.git("remote", "set-url", "origin", url.format(heavy.clone))
    done = slim(heavy, check=False)
    assert done.returncode == ConfigError.exit_code
    assert "nobody else has the old images" in done.stderr
    assert fetched(heavy) == [0, 1, 2, 3]


def test_a_remote_that_leads_back_here_over_ssh_is_no_upstream(heavy: Site, sshd: int) -> None:
    heavy.git("config", "uploadpack.allowFilter", "true")
    heavy.git("config", "uploadpack.allowAnySHA1InWant", "true")
    address = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{heavy.clone}"
    heavy.git("remote", "set-url", "origin", address)
    done = slim(heavy, check=False)
    assert done.returncode == ConfigError.exit_code
    assert "nobody else has the old images" in done.stderr
    assert fetched(heavy) == [0, 1, 2, 3]


def test_a_first_fetch_that_fails_is_made_good_by_the_next(heavy: Site) -> None:
    run("git", "config", "uploadpackfilter.blob:none.allow", "false", cwd=heavy.upstream)
    config = (heavy.clone / ".git" / "config").read_text()
    assert slim(heavy, check=False).returncode == RepositoryError.exit_code
    assert (heavy.clone / ".git" / "config").read_text() == config
    run("git", "config", "--unset", "uploadpackfilter.blob:none.allow", cwd=heavy.upstream)
    slim(heavy)
    assert fetched(heavy) == [2, 3]


def test_a_bare_repository_is_made_small_too(site: Site, tmp_path: Path) -> None:
    let_filter(site)
    shutil.rmtree(site.clone)
    site.clone = tmp_path / "host.git"
    run("git", "clone", "-q", "--bare", site.upstream, site.clone, cwd=tmp_path)
    run("git", "branch", "-q", "--set-upstream-to", "origin/main", cwd=site.clone, check=False)
    site.git("config", "branch.main.remote", "origin")
    site.git("config", "branch.main.merge", "refs/heads/main")
    site.install("--deploy")
    for page in ("two", "three"):
        site.publish(page)
        site.command("poll")
    site.tell_host(keep=1)
    slim(site)
    assert (site.page(), fetched(site)) == ("three", [2])
