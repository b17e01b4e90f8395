"""Every way git moves a branch in a clone, and what the guest runs afterwards.

One row of the table of git's hooks a test: the real git, the dropped hook, a real guest.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from clones import in_a_clone, in_a_linked_worktree, in_a_worktree_of_a_bare_repository
from mirage_hooks.boot import journal
from support import COMMAND, USER, Site, run

KINDS = [in_a_clone, in_a_linked_worktree, in_a_worktree_of_a_bare_repository]


@pytest.fixture(params=KINDS)
def anywhere(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Site:
    """A repository of any kind that is pulled in, whose first image runs."""
    request.param(site, tmp_path)
    site.install("--deploy")
    return site


def commit_locally(site: Site, name: str = "local.txt", text: str = "local\n") -> None:
    (site.here / name).write_text(text)
    site.git("add", name)
    site.git("commit", "-q", "-m", "local")


@pytest.mark.parametrize(
    "command",
    [
        ["pull"],
        ["pull", "--ff-only"],
        ["pull", "--rebase"],
        ["pull", "--rebase=false", "--no-ff", "--no-edit"],
    ],
    ids=["fast-forward", "ff-only", "rebase with nothing to replay", "no-ff"],
)
def test_a_pull_that_runs_post_merge_deploys(anywhere: Site, command: list[str]) -> None:
    anywhere.publish("two")
    anywhere.git(*command)
    assert anywhere.page() == "two"


def test_a_true_merge_deploys(deployed: Site) -> None:
    commit_locally(deployed)
    deployed.publish("two")
    deployed.pull("--no-rebase", "--no-edit")
    assert deployed.page() == "two"


def test_a_merge_of_what_was_fetched_deploys(deployed: Site) -> None:
    deployed.publish("two")
    deployed.git("fetch", "-q")
    assert deployed.page() == "one"
    deployed.git("merge", "-q", "--ff-only", "FETCH_HEAD")
    assert deployed.page() == "two"


def test_a_pull_with_autostash_deploys_and_keeps_the_local_change(deployed: Site) -> None:
    manifest = deployed.clone / "mirage-hooks.toml"
    (deployed.upstream / "note.txt").write_text("note\n")
    manifest.write_text(manifest.read_text() + "# a change in the work tree\n")
    deployed.publish("two")
    deployed.pull("--rebase", "--autostash")
    assert deployed.page() == "two"
    assert manifest.read_text().endswith("# a change in the work tree\n")


def test_a_rebase_of_local_commits_deploys_through_post_rewrite(anywhere: Site) -> None:
    commit_locally(anywhere)
    anywhere.publish("two")
    anywhere.pull("--rebase")
    assert anywhere.page() == "two"
    assert anywhere.state.generations("www")[-1].origin == "rebase"


def test_a_squash_merge_moves_no_branch_and_deploys_nothing(anywhere: Site) -> None:
    anywhere.publish("two")
    anywhere.pull("--squash")
    assert anywhere.page() == "one"
    assert anywhere.outcomes() == ["healthy"]


@pytest.mark.parametrize(
    "command",
    [["pull"], ["fetch"], ["reset", "--hard", "-q", "HEAD"]],
    ids=["pull with nothing new", "fetch", "reset"],
)
def test_what_brings_nothing_starts_no_converge(deployed: Site, command: list[str]) -> None:
    before = deployed.runs()
    deployed.git(*command)
    assert deployed.runs() == before


def reset_to_upstream(site: Site) -> None:
    site.git("fetch", "-q")
    site.git("reset", "-q", "--hard", "origin/main")


def merge_with_a_conflict(site: Site) -> None:
    pull = site.pull("--no-rebase", check=False)
    assert pull.returncode != 0
    site.git("checkout", "--theirs", "mirage-hooks.toml")
    site.git("commit", "-qam", "settled by hand")


@pytest.mark.parametrize("move", [reset_to_upstream, merge_with_a_conflict])
def test_what_runs_no_hook_is_made_good_by_the_next_converge(
    deployed: Site, move: Callable[[Site], None]
) -> None:
    text = (deployed.clone / "mirage-hooks.toml").read_text()
    if move is merge_with_a_conflict:
        commit_locally(deployed, "mirage-hooks.toml", f"# here\n{text}")
        deployed.tables = "# there"
        (deployed.upstream / "mirage-hooks.toml").write_text(f"# there\n{text}")
    deployed.publish("two")
    if move is merge_with_a_conflict:
        (deployed.upstream / "mirage-hooks.toml").write_text(f"# there\n{text}")
        deployed.commit("the same line, otherwise")
    move(deployed)
    assert deployed.page() == "one"
    deployed.command("deploy")
    assert deployed.page() == "two"


def test_a_diverged_fast_forward_only_pull_fails_and_leaves_the_guest(deployed: Site) -> None:
    commit_locally(deployed)
    deployed.publish("two")
    assert deployed.pull("--ff-only", check=False).returncode != 0
    assert deployed.page() == "one"


def test_an_amended_commit_is_no_deploy(deployed: Site) -> None:
    commit_locally(deployed)
    before = deployed.runs()
    deployed.git("commit", "-q", "--amend", "-m", "better")
    assert deployed.runs() == before


def test_a_commit_that_changes_no_image_starts_no_converge(anywhere: Site) -> None:
    (anywhere.upstream / "README").write_text("words\n")
    anywhere.commit("words only")
    before = anywhere.runs()
    pull = anywhere.pull()
    assert anywhere.runs() == before
    assert "mirage-hooks" not in pull.stderr


def test_a_pointer_that_leads_to_the_same_bytes_does_not_reboot(deployed: Site) -> None:
    tender = deployed.monitor().tender
    deployed.publish("one")
    pull = deployed.pull()
    assert "done: www runs as it should" in pull.stderr
    assert deployed.monitor().tender == tender


def test_a_change_of_an_argument_alone_replaces(deployed: Site) -> None:
    deployed.args.append("--hello=from an argument")
    deployed.publish()
    deployed.pull()
    assert deployed.page() == "from an argument"


def test_a_change_of_memory_alone_replaces(deployed: Site) -> None:
    deployed.tables = "memory = 64"
    deployed.publish()
    assert "memory 32 -> 64 MiB" in deployed.pull().stderr
    assert deployed.outcomes() == ["ended", "healthy"]


def test_a_change_of_the_check_alone_reboots_nothing(deployed: Site) -> None:
    tender = deployed.monitor().tender
    deployed.check = 'alive = "1s"'
    deployed.publish()
    assert "without a reboot" in deployed.pull().stderr
    assert deployed.monitor().tender == tender
    live = deployed.live()
    assert live is not None
    assert live.check.alive == "1s"


def test_a_pull_into_another_branch_says_that_it_deploys_nothing(deployed: Site) -> None:
    run("git", "checkout", "-q", "-b", "dev", cwd=deployed.upstream)
    deployed.publish("two")
    deployed.git("fetch", "-q")
    deployed.git("checkout", "-q", "-b", "dev", "origin/main", "--no-track")
    pull = deployed.pull("origin", "dev")
    assert "dev is checked out, but only main deploys" in pull.stderr
    assert deployed.page() == "one"


def test_a_pull_in_a_linked_worktree_with_another_branch_says_that_it_deploys_nothing(
    deployed: Site, tmp_path: Path
) -> None:
    deployed.git("branch", "-q", "dev")
    deployed.worktree = tmp_path / "linked"
    run("git", "worktree", "add", "-q", str(deployed.worktree), "dev", cwd=deployed.clone)
    deployed.publish("two")
    pull = deployed.pull("origin", "main")
    assert "dev is checked out, but only main deploys" in pull.stderr
    assert deployed.page() == "one"


def test_worktrees_share_one_state(anywhere: Site) -> None:
    folders = anywhere.clone.parent.rglob("mirage-hooks/host.toml")
    assert [path.parent for path in folders] == [anywhere.state.folder]


def test_the_first_pull_after_install_boots_the_guest(site: Site) -> None:
    site.install()
    site.publish("two")
    site.pull()
    assert site.page() == "two"


def test_a_path_with_spaces_and_letters_of_every_kind_deploys(
    tmp_path: Path, site: Site, compiled: Callable[[str], Path]
) -> None:
    del compiled
    odd = tmp_path / "ein Ort für 網站"
    run("git", "clone", "-q", str(site.upstream), str(odd), cwd=tmp_path)
    site.clone = odd
    site.install("--deploy")
    site.publish("two")
    site.pull()
    assert site.page() == "two"


def test_hooks_work_with_a_bare_environment_as_cron_has_it(deployed: Site) -> None:
    deployed.publish("two")
    environment = ["PATH=/usr/bin:/bin", f"HOME={deployed.clone.parent / 'home'}"]
    run("env", "-i", *environment, "sh", "-c", "git pull", cwd=deployed.clone)
    assert deployed.page() == "two"
    # Its socket is in /run or /tmp, without XDG_RUNTIME_DIR: taken out in the same environment.
    command = ["env", "-i", *environment, str(COMMAND), "uninstall", "--stop", "--yes"]
    run(*command, cwd=deployed.clone)


def test_a_guest_named_at_install_needs_no_manifest(site: Site) -> None:
    (site.upstream / "mirage-hooks.toml").unlink()
    site.commit("no manifest")
    site.pull()
    guest = ["--guest", "www", "--target", "unix", "--image", "unix/{latest}/www.unix"]
    user = ["--user", USER] if USER else []
    run(COMMAND, "install", str(site.clone), *user, *guest, cwd=site.upstream)
    host_file = site.state.host_file
    host_file.write_text(
        host_file.read_text() + f'args = ["--ipv4=127.0.0.1/8", "--port={site.port}"]\n'
    )
    site.command("deploy")
    assert site.page() == "one"


# A pause.


def test_a_pull_deploys_nothing_while_paused_and_says_why(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    deployed.publish("two")
    pull = deployed.pull()
    assert deployed.page() == "one"
    said = (
        r"^mirage-hooks: paused since \S+ by \S+: moving the disks; "
        r"`mirage-hooks resume` ends that$"
    )
    assert re.search(said, pull.stderr, re.M)
    assert deployed.outcomes() == ["healthy"]


def test_a_pause_is_logged_and_ends_as_done(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    deployed.publish("two")
    deployed.pull()
    events = list(journal.read(str(deployed.state.events)))[-2:]
    assert [event["event"] for event in events] == ["converge.paused", "converge.finished"]
    assert events[1]["exit_code"] == 0


def test_a_pull_that_changes_nothing_that_runs_stays_silent_while_paused(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    (deployed.upstream / "note.txt").write_text("note\n")
    deployed.commit("a note")
    assert "paused" not in deployed.pull().stderr


def test_every_pull_says_that_it_is_paused_also_after_a_deploy_by_hand(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    deployed.publish("two")
    deployed.pull()
    deployed.command("deploy")
    deployed.publish("three")
    assert "moving the disks" in deployed.pull().stderr
    assert deployed.page() == "two"
    deployed.publish("four")
    assert "moving the disks" in deployed.pull().stderr


def test_a_rebase_deploys_nothing_while_paused(deployed: Site) -> None:
    deployed.command("pause", "moving the disks")
    commit_locally(deployed)
    deployed.publish("two")
    assert "moving the disks" in deployed.pull("--rebase").stderr
    assert deployed.page() == "one"


# What runs here.


def test_a_pull_leaves_alone_what_the_host_does_not_choose(installed: Site) -> None:
    installed.tell_host(guests=["www"])
    installed.tables = '[guest.broken]\ntarget = "xen"\nimage = "nothing"\n'
    installed.publish("two")
    pull = installed.pull()
    assert installed.page() == "two"
    assert "broken" not in pull.stderr
    assert pull.stderr.endswith("done: www runs as it should\n")
