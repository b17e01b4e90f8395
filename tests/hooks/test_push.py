"""Every way a push moves a branch of a repository on this host, and what the guest runs then.

The real git, the dropped hook, a real guest: pushing instead of pulling.
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.boot.process import identify
from support import Site, link_worktree, make_bare, run, wait_for

# What is pushed to, by the kind of the repository.


def bare(site: Site, folder: Path) -> None:
    make_bare(site, folder)


def with_a_work_tree(site: Site, folder: Path) -> None:
    """git brings the work tree up to date with the push."""
    del folder
    site.git("config", "receive.denyCurrentBranch", "updateInstead")


def with_the_branch_in_a_linked_worktree(site: Site, folder: Path) -> None:
    link_worktree(site, folder)
    site.git("config", "receive.denyCurrentBranch", "updateInstead")


def bare_with_a_linked_worktree(site: Site, folder: Path) -> None:
    make_bare(site, folder)
    link_worktree(site, folder)
    site.git("config", "receive.denyCurrentBranch", "updateInstead")


KINDS = [
    bare,
    with_a_work_tree,
    with_the_branch_in_a_linked_worktree,
    bare_with_a_linked_worktree,
]


@pytest.fixture(params=KINDS)
def host(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Site:
    """A repository of any kind that is pushed to, whose first image runs."""
    request.param(site, tmp_path)
    site.install("--deploy")
    return site


@pytest.fixture
def pushed(site: Site, tmp_path: Path) -> Site:
    """A bare repository that is pushed to, whose first image runs."""
    make_bare(site, tmp_path)
    site.install("--deploy")
    return site


# What deploys.


def test_a_push_deploys(host: Site) -> None:
    host.publish("two")
    host.push()
    assert host.page() == "two"


def test_a_push_that_changes_no_image_starts_no_converge(host: Site) -> None:
    (host.upstream / "README").write_text("words\n")
    host.commit("words only")
    before = host.runs()
    push = host.push()
    assert (host.runs(), "mirage-hooks" in push.stderr) == (before, False)


def test_a_push_that_brings_the_work_tree_up_to_date_leaves_it_clean(
    site: Site, tmp_path: Path
) -> None:
    with_a_work_tree(site, tmp_path)
    site.install("--deploy")
    site.publish("two")
    site.push()
    assert site.git("status", "--porcelain").stdout == ""


def test_a_push_into_a_dirty_work_tree_is_refused_by_git_and_leaves_the_guest(
    site: Site, tmp_path: Path
) -> None:
    with_a_work_tree(site, tmp_path)
    site.install("--deploy")
    (site.clone / "mirage-hooks.toml").write_text("# changed by hand\n")
    site.publish("two")
    push = site.push(check=False)
    assert push.returncode != 0
    assert site.page() == "one"


def everything(site: Site) -> None:
    site.push("--all", str(site.clone))


def a_mirror(site: Site) -> None:
    site.push("--mirror", str(site.clone))


def several_refs(site: Site) -> None:
    run("git", "tag", "v2", cwd=site.upstream)
    site.push(str(site.clone), "HEAD:refs/heads/aaa", "main", "v2", "HEAD:refs/heads/zzz")


def another_branch_as_this_one(site: Site) -> None:
    run("git", "branch", "-m", "main", "trunk", cwd=site.upstream)
    site.push(str(site.clone), "trunk:main")


@pytest.mark.parametrize("push", [everything, a_mirror, several_refs, another_branch_as_this_one])
def test_a_push_of_the_branch_among_others_deploys(
    pushed: Site, push: Callable[[Site], None]
) -> None:
    pushed.publish("two")
    push(pushed)
    assert pushed.page() == "two"


def test_a_forced_push_to_an_older_commit_deploys_that(pushed: Site) -> None:
    pushed.publish("two")
    pushed.push()
    pushed.push("--force", str(pushed.clone), "HEAD~1:main")
    assert pushed.page() == "one"


def test_the_first_push_into_an_empty_repository_deploys(site: Site, tmp_path: Path) -> None:
    site.clone = tmp_path / "empty.git"
    run("git", "init", "-q", "--bare", str(site.clone), cwd=tmp_path)
    site.install()
    site.push()
    assert site.page() == "one"


# What does not.


def another_branch(site: Site) -> None:
    site.push(str(site.clone), "main:mainline")


def a_tag(site: Site) -> None:
    run("git", "tag", "main", cwd=site.upstream)
    site.push(str(site.clone), "tag", "main")


def nothing_new(site: Site) -> None:
    site.push(str(site.clone), "HEAD~1:main")


def a_dry_run(site: Site) -> None:
    site.push("-n", str(site.clone), "main")


def a_deletion_of_another_branch(site: Site) -> None:
    site.push(str(site.clone), "HEAD~1:refs/heads/other")
    site.push(str(site.clone), "--delete", "other")


@pytest.mark.parametrize(
    "push", [another_branch, a_tag, nothing_new, a_dry_run, a_deletion_of_another_branch]
)
def test_a_push_of_something_else_starts_no_converge(
    pushed: Site, push: Callable[[Site], None]
) -> None:
    pushed.publish("two")
    before = pushed.runs()
    push(pushed)
    assert pushed.runs() == before


def test_a_deletion_of_the_branch_that_deploys_leaves_the_guest(pushed: Site) -> None:
    run("git", "config", "receive.denyDeleteCurrent", "ignore", cwd=pushed.clone)
    tender = pushed.monitor().tender
    pushed.push(str(pushed.clone), "--delete", "main")
    assert pushed.monitor().tender == tender


def test_a_branch_that_comes_back_deploys(pushed: Site) -> None:
    run("git", "config", "receive.denyDeleteCurrent", "ignore", cwd=pushed.clone)
    pushed.push(str(pushed.clone), "--delete", "main")
    pushed.publish("two")
    pushed.push()
    assert pushed.page() == "two"


# Which branch deploys is read from the host file, whenever that was changed.


def by_an_install(site: Site) -> None:
    site.command("install", "--branch", "stage")


def by_hand(site: Site) -> None:
    text = site.state.host_file.read_text()
    site.state.host_file.write_text(text.replace('branch = "main"', 'branch = "stage"'))


@pytest.mark.parametrize("name", [by_an_install, by_hand])
def test_a_push_of_a_branch_that_was_named_since_deploys(
    pushed: Site, name: Callable[[Site], None]
) -> None:
    run("git", "branch", "stage", "main", cwd=pushed.clone)
    name(pushed)
    pushed.publish("two")
    pushed.push(str(pushed.clone), "main:stage")
    assert pushed.page() == "two"


# What the pusher sees.


def told(push: "subprocess.CompletedProcess[str]") -> list[str]:
    """Return the lines that a push shows from the other side, without git's padding."""
    lines = (line.rstrip() for line in push.stderr.splitlines())
    return [line.removeprefix("remote: ") for line in lines if line.startswith("remote: ")]


def test_a_push_shows_the_deploy_and_how_it_ended(pushed: Site) -> None:
    commit = pushed.publish("two")[:7]
    lines = told(pushed.push())
    assert lines[0].startswith(f"mirage-hooks: main at {commit} (push), deploy ")
    assert lines[-1] == "mirage-hooks: done: www runs as it should"


def test_a_push_of_an_image_that_is_not_healthy_shows_that_it_was_rolled_back(
    pushed: Site,
) -> None:
    pushed.args = ["--exit=3"]
    pushed.publish("two")
    lines = told(pushed.push())
    assert [line for line in lines if "www: roll back" in line] != []
    assert [line for line in lines if line.startswith("mirage-hooks: not as it should be")] != []
    assert pushed.page() == "one"


def test_a_push_of_an_image_that_is_not_healthy_succeeds(pushed: Site) -> None:
    pushed.args = ["--exit=3"]
    commit = pushed.publish("two")
    pushed.push()
    there = run("git", "rev-parse", "main", cwd=pushed.clone).stdout.strip()
    assert there == commit


# A converger that is killed once the new guest was given the word.


def test_a_killed_converger_leaves_the_switch_to_the_monitor_and_the_judging_to_the_next(
    pushed: Site,
) -> None:
    pushed.args.append("--delay=1000")
    pushed.publish("two")
    push = subprocess.Popen(
        ["git", "push", str(pushed.clone), "main"],
        cwd=pushed.upstream,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(pushed.booting)
    converger = int(pushed.state.lock.read_text().partition('"pid": ')[2].partition(",")[0])
    identify(converger).kill()
    _, stderr = push.communicate(timeout=10)
    assert (push.returncode, "was killed before it had finished" in stderr) == (0, True)
    wait_for(lambda: pushed.page() == "two")
    (pushed.upstream / "README").write_text("words\n")
    pushed.commit("words only")
    pushed.push()
    assert pushed.outcomes() == ["ended", "healthy"]
