"""`mirage-hooks clone`: what is fetched and what is not, what deploys from it, what is refused."""

import getpass
import http.server
import shutil
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from mirage_hooks.boot import promised, slim
from mirage_hooks.boot.errors import ConfigError, HostError, RepositoryError
from mirage_hooks.boot.repository import Repository
from mounts import small_disk
from partial_clones import clone_small, fetched, here, images, let_filter, log_asking
from polling import rewrite_upstream
from support import COMMAND, Site, free_port, run, wait_for

REFUSED, IN_THE_WAY = RepositoryError.exit_code, HostError.exit_code


@pytest.fixture
def small(site: Site) -> Site:
    """A clone without images, of an upstream that has three; nothing is installed."""
    site.publish("two")
    site.publish("three")
    clone_small(site)
    return site


@pytest.fixture
def running(small: Site) -> Site:
    """The same, and the newest image runs."""
    small.install()
    small.command("deploy")
    assert small.page() == "three"
    return small


def clone(
    folder: Path, *arguments: str | Path, check: bool = True
) -> subprocess.CompletedProcess[str]:
    return run(COMMAND, "clone", *arguments, cwd=folder, check=check)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder to clone into."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


# What is fetched.


def test_a_clone_has_no_image(small: Site) -> None:
    assert (len(images(small)), fetched(small)) == (3, [])


def test_the_work_tree_has_all_but_images(small: Site) -> None:
    tree = [path for path in small.clone.rglob("*") if ".git" not in path.parts and path.is_file()]
    assert sorted(path.name for path in tree) == ["latest", "mirage-hooks.toml"]
    assert small.git("status", "--porcelain").stdout == ""


def test_what_the_manifest_calls_an_image_is_none_of_the_work_tree(site: Site) -> None:
    manifest = site.manifest().replace("unix/{latest}/www.unix", "boot [1]/{latest}/www")
    (site.upstream / "boot [1]" / "abc").mkdir(parents=True)
    (site.upstream / "boot [1]" / "latest").write_text("abc\n")
    (site.upstream / "boot [1]" / "abc" / "www").write_bytes(site.compiled("two").read_bytes())
    (site.upstream / "mirage-hooks.toml").write_text(manifest)
    site.commit("an image by another name")
    clone_small(site)
    assert (site.clone / "boot [1]" / "latest").exists()
    assert not (site.clone / "boot [1]" / "abc").exists()


def test_a_deploy_fetches_the_image_that_is_to_run_and_no_other(running: Site) -> None:
    assert fetched(running) == [2]


def test_a_deploy_fetches_no_image_of_a_guest_that_runs_elsewhere(small: Site) -> None:
    shutil.copy(small.compiled("other"), small.upstream / "other.unix")
    manifest = small.upstream / "mirage-hooks.toml"
    table = '[guest.other]\ntarget = "unix"\nimage = "other.unix"\n'
    manifest.write_text(manifest.read_text() + table)
    small.commit("a guest for another host")
    small.pull("-q")
    small.install()
    small.tell_host(guests=["www"])
    small.command("deploy")
    assert (small.page(), fetched(small)) == ("three", [2])


def test_a_pull_deploys_and_fetches_what_is_new_and_no_other(running: Site) -> None:
    running.publish("four")
    running.publish("five")
    running.pull()
    assert (running.page(), fetched(running)) == ("five", [2, 4])


def test_a_poll_deploys_and_fetches_what_is_new_and_no_other(running: Site) -> None:
    running.publish("four")
    running.publish("five")
    running.command("poll")
    assert (running.page(), fetched(running)) == ("five", [2, 4])


def test_a_rewritten_upstream_is_followed_and_no_other_image_fetched(running: Site) -> None:
    running.tell_host(poll={"upstream": "follow"})
    rewrite_upstream(running, "four")
    running.command("poll")
    assert (running.page(), fetched(running)) == ("four", [2])


def test_a_pull_that_brings_nothing_for_this_host_starts_no_converge(running: Site) -> None:
    (running.upstream / "note.txt").write_text("a note\n")
    running.commit("a note")
    before = running.runs()
    running.pull()
    assert ((running.clone / "note.txt").exists(), running.runs()) == (True, before)


def test_a_pull_with_local_commits_fetches_no_other_image(running: Site) -> None:
    (running.clone / "local.txt").write_text("local\n")
    running.git("add", "local.txt")
    running.git("commit", "-qm", "local")
    shutil.rmtree(running.upstream / "unix" / f"{1:040x}")
    running.publish("four")
    running.pull("-q", "--no-rebase", "--no-edit")
    assert (running.page(), fetched(running)) == ("four", [2, 3])


@pytest.mark.parametrize(
    "command", [["status"], ["plan"], ["deploy", "--dry-run"], ["history"], ["doctor"], ["gc"]]
)
def test_who_only_looks_fetches_no_image(small: Site, command: list[str]) -> None:
    small.install()
    small.command(*command, check=False)
    assert fetched(small) == []


def test_a_plan_says_which_image_is_to_be_fetched(small: Site) -> None:
    small.install()
    text = f"unix/{3:040x}/www.unix is not in this clone yet"
    assert text in small.command("plan").stdout


def test_a_bare_partial_clone_fetches_what_it_deploys(site: Site, tmp_path: Path) -> None:
    site.publish("two")
    let_filter(site)
    shutil.rmtree(site.clone)
    site.clone = tmp_path / "host.git"
    url = site.upstream.as_uri()
    run("git", "clone", "-q", "--bare", "--filter=blob:none", url, site.clone, cwd=tmp_path)
    site.install()
    site.command("deploy")
    assert (site.page(), fetched(site)) == ("two", [1])


def test_a_clone_forgets_images_that_nothing_goes_back_to(running: Site) -> None:
    running.tell_host(keep=1)
    for page in ("four", "five"):
        running.publish(page)
        running.pull()
    assert (running.page(), fetched(running)) == ("five", [4])
    run("git", "fsck", "--connectivity-only", cwd=running.clone)
    assert "done: www runs as it should" in running.command("deploy").stdout


def test_an_image_that_the_upstream_had_once_stays_while_a_branch_needs_it(running: Site) -> None:
    running.tell_host(keep=1, poll={"upstream": "follow"})
    *_, three = images(running)
    running.git("branch", "mine")
    rewrite_upstream(running, "four")
    run("git", "reflog", "expire", "--expire=now", "--all", cwd=running.upstream)
    run("git", "gc", "-q", "--prune=now", cwd=running.upstream)
    for page in ("five", "six"):
        running.command("poll")
        running.publish(page)
    running.command("poll")
    assert (running.page(), three in here(running)) == ("six", True)


def test_an_image_stays_where_only_a_branch_had_it_that_is_gone_upstream(running: Site) -> None:
    running.tell_host(keep=1)
    *_, three = images(running)
    run("git", "branch", "old", cwd=running.upstream)
    running.git("fetch", "-q")
    rewrite_upstream(running, "four")
    run("git", "branch", "-q", "-D", "old", cwd=running.upstream)
    running.git("reset", "-q", "--keep", "HEAD^")
    for page in ("five", "six"):
        running.publish(page)
        running.pull("-q")
    assert (running.page(), three in here(running)) == ("six", True)


def test_a_bare_clone_that_polls_no_more_goes_by_no_old_poll(site: Site, tmp_path: Path) -> None:
    let_filter(site)
    shutil.rmtree(site.clone)
    site.clone = tmp_path / "host.git"
    url = site.upstream.as_uri()
    run("git", "clone", "-q", "--bare", "--filter=blob:none", url, site.clone, cwd=tmp_path)
    site.git("config", "branch.main.remote", "origin")
    site.git("config", "branch.main.merge", "refs/heads/main")
    site.install("--deploy")
    site.tell_host(keep=1)
    site.publish("two")
    site.command("poll")
    *_, two = images(site)
    site.git("branch", "mine", "main")
    rewrite_upstream(site, "three")
    site.git("fetch", "-q", "origin", "+main:main")
    site.command("deploy")
    assert (site.page(), two in here(site)) == ("three", True)


def test_while_the_server_is_away_nothing_is_forgotten_nor_said(running: Site) -> None:
    running.tell_host(keep=1)
    running.publish("four")
    running.git("-c", "core.hooksPath=/nonexistent", "pull", "-q")
    *_, three, four = images(running)
    Repository(running.clone).blob("www.unix", four)
    running.upstream.rename(running.upstream.with_name("moved"))
    said = running.command("deploy").stdout
    assert (running.page(), {three, four} <= here(running)) == ("four", True)
    assert "not removed" not in said


def test_a_server_that_turns_out_to_be_this_clone_makes_it_forget_nothing(running: Site) -> None:
    running.git("config", "uploadpack.allowFilter", "true")
    running.tell_host(keep=1)
    running.publish("four")
    running.git("-c", "core.hooksPath=/nonexistent", "pull", "-q")
    Repository(running.clone).blob("www.unix", images(running)[-1])
    running.git("remote", "set-url", "origin", running.clone.as_uri())
    running.command("deploy")
    assert (running.page(), fetched(running)) == ("four", [2, 3])


def test_a_damaged_object_keeps_no_deploy_from_forgetting(running: Site) -> None:
    running.tell_host(keep=1)
    (running.clone / "note.txt").write_text("a note\n")
    oid = running.git("hash-object", "-w", "note.txt").stdout.strip()
    damaged = running.clone / ".git" / "objects" / oid[:2] / oid[2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    for page in ("four", "five"):
        running.publish(page)
        running.pull()
    assert (running.page(), fetched(running)) == ("five", [4])


def test_who_could_read_the_clone_can_read_it_after_a_deploy(running: Site) -> None:
    running.tell_host(keep=1)
    for page in ("four", "five"):
        running.publish(page)
        running.pull()
    packs = running.clone / ".git" / "objects" / "pack"
    assert {path.name: oct(path.stat().st_mode & 0o444) for path in packs.iterdir()} == {
        path.name: "0o444" for path in packs.iterdir()
    }


@pytest.mark.parametrize(
    ("objects", "shared", "rights"),
    [(0o755, "umask", 0o644), (0o700, "umask", 0o600), (0o755, "0640", 0o640)],
)
def test_what_a_deploy_writes_has_the_rights_of_what_was_there(
    small: Site, objects: int, shared: str, rights: int
) -> None:
    git = small.clone / ".git"
    (git / "objects").chmod(objects)
    small.git("config", "core.sharedRepository", shared)
    before = set((git / "objects" / "pack").iterdir())
    small.install("--deploy")
    (pack,) = set((git / "objects" / "pack").glob("*.pack")) - before
    (pin,) = (git / "refs" / "mirage-hooks" / "keep").iterdir()
    assert oct(stat.S_IMODE(pack.stat().st_mode)) == oct(rights & 0o444)
    assert oct(stat.S_IMODE(pin.stat().st_mode)) == oct(rights)


# A rollback.


@pytest.fixture
def forgetful(running: Site) -> Site:
    """Two images were run, and neither is in the clone or stored any more."""
    running.publish("four")
    running.pull()
    slim.drop(Repository(running.clone), frozenset())
    for path in running.state.store.iterdir():
        if path.is_file():
            path.unlink()
    assert fetched(running) == []
    return running


def test_a_rollback_fetches_the_image_that_it_needs_and_no_other(forgetful: Site) -> None:
    forgetful.command("rollback", "www")
    assert forgetful.page() == "three"
    assert 1 not in fetched(forgetful)


def test_a_rollback_whose_server_is_away_says_so_and_changes_nothing(forgetful: Site) -> None:
    forgetful.upstream.rename(forgetful.upstream.with_name("moved"))
    done = forgetful.command("rollback", "www", check=False)
    assert done.returncode == IN_THE_WAY
    assert "cannot be fetched: there is no such repository" in done.stderr
    assert "dubious" not in done.stderr
    assert (forgetful.page(), forgetful.state.intent("www")) == ("four", None)


def test_a_deploy_whose_server_was_away_is_made_good_by_the_next(small: Site) -> None:
    small.install()
    away = small.upstream.with_name("moved")
    small.upstream.rename(away)
    done = small.command("deploy", check=False)
    assert (done.returncode, "cannot be fetched" in done.stderr) == (IN_THE_WAY, True)
    away.rename(small.upstream)
    small.command("deploy")
    assert small.page() == "three"


def test_a_server_that_has_the_image_no_longer_is_said_as_such(forgetful: Site) -> None:
    run("git", "checkout", "-q", "--orphan", "anew", cwd=forgetful.upstream)
    run("git", "rm", "-rq", "--cached", ".", cwd=forgetful.upstream)
    run("git", "commit", "-q", "--allow-empty", "-m", "anew", cwd=forgetful.upstream)
    run("git", "branch", "-q", "-M", "anew", "main", cwd=forgetful.upstream)
    run("git", "reflog", "expire", "--expire=now", "--all", cwd=forgetful.upstream)
    run("git", "gc", "-q", "--prune=now", cwd=forgetful.upstream)
    done = forgetful.command("rollback", "www", check=False)
    assert (done.returncode, "is gone: it is not stored any more" in done.stderr) == (REFUSED, True)


@pytest.fixture
def hanging() -> Iterator[int]:
    """A port of loopback on which connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_server_that_never_answers_is_given_up_in_time(
    small: Site, hanging: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.git("remote", "set-url", "origin", f"git://127.0.0.1:{hanging}/upstream")
    monkeypatch.setattr(promised, "_SECONDS", 1)
    repository = Repository(small.clone)
    with pytest.raises(HostError, match="it took more than 1 s"):
        repository.blob("www.unix", images(small)[0])


def test_a_page_where_the_repository_was_is_asked_once(small: Site) -> None:
    """Left to itself git would fetch what it lacks to fetch what it lacks, without end."""
    small.install()
    with serving(Page) as address:
        small.git("remote", "set-url", "origin", f"{address}/images")
        done = small.command("deploy", check=False)
    assert (done.returncode, "cannot be fetched" in done.stderr) == (IN_THE_WAY, True)


@pytest.fixture
def pair(small: Site) -> Site:
    """The same clone with another guest, installed; neither image was fetched yet."""
    shutil.copy(small.compiled("other"), small.upstream / "other.unix")
    manifest = small.upstream / "mirage-hooks.toml"
    args = f'args = ["--ipv4=127.0.0.1/8", "--port={free_port()}"]'
    table = f'[guest.other]\ntarget = "unix"\nimage = "other.unix"\n{args}\n'
    manifest.write_text(manifest.read_text() + table)
    small.commit("another guest")
    small.pull("-q")
    small.install()
    return small


def test_images_of_several_guests_come_at_once(pair: Site) -> None:
    asked = log_asking(pair)
    pair.command("deploy")
    assert fetched(pair) == [2, 3]
    assert len(asked.read_text().splitlines()) == 1


def test_an_image_that_the_server_has_no_longer_costs_no_other_guest_its_own(pair: Site) -> None:
    lost = images(pair)[3]
    (pair.upstream / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    done = pair.command("deploy", check=False)
    assert (pair.page(), done.returncode) == ("three", REFUSED)
    assert "other.unix is not in this clone, nor any longer with its server" in done.stderr


@pytest.fixture
def unfetched(running: Site, hanging: int) -> Site:
    """Two images were run, a third is to be, and its server does not answer any more."""
    running.publish("four")
    running.pull()
    running.publish("five")
    running.git("-c", "core.hooksPath=/dev/null", "pull", "-q")
    running.git("remote", "set-url", "origin", f"git://127.0.0.1:{hanging}/upstream")
    return running


def test_a_booted_host_waits_for_no_server(unfetched: Site) -> None:
    unfetched.monitor().monitor.kill()
    wait_for(lambda: unfetched.page() is None)
    done = unfetched.command("up", check=False)
    assert (unfetched.page(), done.returncode) == ("four", IN_THE_WAY)
    assert "`mirage-hooks deploy` fetches it" in done.stderr


def test_a_rollback_waits_for_no_image_but_its_own(unfetched: Site) -> None:
    unfetched.command("rollback", "www")
    assert unfetched.page() == "three"


# Ways to it.


def test_what_is_to_be_done_next_is_said(site: Site, empty: Path) -> None:
    let_filter(site)
    done = clone(empty, str(site.upstream), "a folder")
    assert done.stderr == ""
    assert "a folder: cloned without images, " in done.stdout
    assert done.stdout.endswith("next: cd 'a folder' && mirage-hooks install\n")


def test_a_clone_is_called_as_git_would(site: Site, empty: Path) -> None:
    run("git", "clone", "-q", "--bare", site.upstream, "www.git", cwd=empty)
    clone(empty, f"{empty}/www.git/")
    assert sorted(path.name for path in empty.iterdir()) == ["www", "www.git"]


def test_a_server_that_does_not_filter_is_said_and_serves(site: Site, tmp_path: Path) -> None:
    site.publish("two")
    shutil.rmtree(site.clone)
    done = clone(tmp_path, site.upstream.as_uri(), str(site.clone))
    assert done.stderr.count("\n") == 1
    assert "does not filter: all old images are fetched, too" in done.stderr
    assert fetched(site) == [0, 1]
    assert not list(site.clone.rglob("www.unix"))
    site.install()
    site.command("deploy")
    assert site.page() == "two"
    assert "filter" not in site.git("fetch").stderr


def test_an_empty_repository_is_cloned(empty: Path) -> None:
    run("git", "init", "-q", "--bare", "origin.git", cwd=empty)
    done = clone(empty, "origin.git", "clone")
    assert done.stdout.startswith("clone: cloned; it is empty: nothing was published yet\n")
    run("git", "commit", "-q", "--allow-empty", "-m", "first", cwd=empty / "clone")


def test_a_bundle_is_cloned(site: Site, empty: Path) -> None:
    run("git", "bundle", "create", "-q", f"{empty}/images.bundle", "--all", cwd=site.upstream)
    clone(empty, "images.bundle")
    assert (empty / "images" / "unix" / "latest").exists()


@contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve by HTTP on loopback; give the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        del format, args


def test_a_server_of_mere_files_is_said_and_serves(site: Site, empty: Path) -> None:
    run("git", "update-server-info", cwd=site.upstream)
    with serving(partial(Files, directory=str(site.upstream))) as address:
        done = clone(empty, f"{address}/.git", "clone")
    assert "does not filter" in done.stderr
    assert (empty / "clone" / "unix" / "latest").exists()


def test_a_clone_over_ssh_has_no_image(site: Site, sshd: int) -> None:
    let_filter(site)
    run("git", "config", "uploadpack.allowAnySHA1InWant", "true", cwd=site.upstream)
    shutil.rmtree(site.clone)
    address = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{site.upstream}"
    clone(site.clone.parent, address, str(site.clone))
    assert fetched(site) == []


def test_a_server_that_gives_nothing_by_its_id_is_said_and_serves(site: Site, sshd: int) -> None:
    """An sshd takes no GIT_PROTOCOL unless told to: then git speaks as it did before 2.18."""
    let_filter(site)
    shutil.rmtree(site.clone)
    address = f"ssh://{getpass.getuser()}@127.0.0.1:{sshd}{site.upstream}"
    assert "does not filter" in clone(site.clone.parent, address, str(site.clone)).stderr
    assert fetched(site) == [0]


# Refused.


class Page(Files):
    """A page, wherever one looks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>Sign in</h1>")


class AsksForPassword(Files):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="here"')
        self.end_headers()


def test_a_server_that_asks_for_a_password_gets_no_answer(empty: Path) -> None:
    with serving(AsksForPassword) as address:
        url = address.replace("//", "//me:pa55word@")
        done = clone(empty, f"{url}/images", check=False)
    assert (done.returncode, "asks for a password" in done.stderr) == (REFUSED, True)
    assert "pa55word" not in done.stderr
    assert not list(empty.iterdir())


def test_no_program_is_run_that_asks(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = empty.with_name("asked")
    program = empty.with_name("askpass")
    program.write_text(f"#!/bin/sh\n: >'{asked}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("GIT_ASKPASS", str(program))
    run("git", "config", "--global", "core.askPass", program, cwd=empty)
    with serving(AsksForPassword) as address:
        clone(empty, f"{address}/images", check=False)
    assert not asked.exists()


def test_a_credential_helper_is_asked(empty: Path) -> None:
    asked = empty.with_name("asked")
    run("git", "config", "--global", "credential.helper", f"!: >'{asked}';:", cwd=empty)
    with serving(AsksForPassword) as address:
        clone(empty, f"{address}/images", check=False)
    assert asked.exists()


class SignsIn(Files):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>who are you?</html>\n")


def test_a_page_to_sign_in_is_no_git_server(empty: Path) -> None:
    with serving(SignsIn) as address:
        done = clone(empty, f"{address}/images", check=False)
    assert (done.returncode, "no git server" in done.stderr) == (REFUSED, True)


def test_a_server_whose_head_is_not_there_is_refused_with_the_branches_that_are(
    site: Site, empty: Path
) -> None:
    run("git", "branch", "release", cwd=site.upstream)
    run("git", "symbolic-ref", "HEAD", "refs/heads/gone", cwd=site.upstream)
    done = clone(empty, site.upstream.as_uri(), "clone", check=False)
    assert done.returncode == REFUSED
    assert "names a branch that is not there; there are: main, release\n" in done.stderr
    assert not list(empty.iterdir())


def test_a_repository_that_is_not_there_is_said(empty: Path) -> None:
    done = clone(empty, f"{empty}/nothing", check=False)
    assert (done.returncode, "there is no such repository" in done.stderr) == (REFUSED, True)
    assert not list(empty.iterdir())


def test_a_repository_of_sha256_is_refused(empty: Path) -> None:
    run("git", "init", "-q", "--object-format=sha256", "origin", cwd=empty)
    run("git", "commit", "-q", "--allow-empty", "-m", "first", cwd=empty / "origin")
    done = clone(empty, "origin", "clone", check=False)
    assert (done.returncode, "has ids of sha256" in done.stderr) == (REFUSED, True)
    assert [path.name for path in empty.iterdir()] == ["origin"]


def test_a_folder_that_is_not_empty_is_left_as_it_is(site: Site, empty: Path) -> None:
    (empty / "clone").mkdir()
    (empty / "clone" / "mine").touch()
    done = clone(empty, str(site.upstream), "clone", check=False)
    assert (done.returncode, "clone is there, and not empty" in done.stderr) == (IN_THE_WAY, True)
    assert [path.name for path in (empty / "clone").iterdir()] == ["mine"]


def test_an_empty_folder_is_cloned_into(site: Site, empty: Path) -> None:
    (empty / ".empty.mirage-hooks-clone.1").mkdir()  # of one that was killed
    clone(empty, str(site.upstream), ".")
    assert sorted(path.name for path in empty.iterdir()) == [".git", "mirage-hooks.toml", "unix"]


def test_a_disk_of_its_own_is_cloned_into(mounts: None, site: Site, empty: Path) -> None:
    del mounts
    small_disk(empty / "disk", "8m")
    clone(empty, str(site.upstream), "disk")
    names = sorted(path.name for path in (empty / "disk").iterdir())
    assert names == [".git", "mirage-hooks.toml", "unix"]


def test_configuration_in_the_environment_counts(
    site: Site, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{site.upstream}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "ci:deployment")
    clone(empty, "ci:deployment", "clone")
    assert (empty / "clone" / ".git").exists()


def test_an_address_without_a_name_in_it_needs_a_folder(empty: Path) -> None:
    done = clone(empty, "ssh://127.0.0.1/..", check=False)
    assert (done.returncode, "name it" in done.stderr) == (ConfigError.exit_code, True)


def test_a_clone_that_is_ended_leaves_nothing(empty: Path, hanging: int) -> None:
    url = f"git://127.0.0.1:{hanging}/upstream"
    with subprocess.Popen([COMMAND, "clone", url], cwd=empty) as cloning:
        wait_for(lambda: asking(url))
        cloning.send_signal(signal.SIGTERM)
        assert cloning.wait(10) == 128 + signal.SIGTERM
    wait_for(lambda: not asking(url))
    assert not list(empty.iterdir())


def asking(url: str) -> bool:
    """Whether a git asks a server."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"git" and url.encode() in words:
            return True
    return False
