"""The server to publish to: which one it is, and what becomes of one that does not answer."""

import socket
import time

import pytest

from mirage_hooks.boot import pins, remote
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.remote import Branch
from mirage_hooks.boot.repository import Repository
from publisher import Publisher
from support import run


def chosen(job: Publisher, name: str | None = None) -> tuple[str, str]:
    """Return the remote and the branch that are published to from a clone."""
    branch = remote.choose(Repository(job.clone), name)
    return branch.remote, branch.name


def test_a_server_that_does_not_answer_is_left_in_time(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        job.git("remote", "set-url", "origin", f"http://127.0.0.1:{port}/x.git")
        began = time.monotonic()
        with pytest.raises(RepositoryError, match="it took more than 1 s"):
            Branch(Repository(job.clone), "origin", "main").fetch()
    assert time.monotonic() - began < 8


def test_no_token_of_a_remotes_url_is_said(job: Publisher) -> None:
    with pytest.raises(RepositoryError, match="cannot be fetched from http://127") as refused:
        Branch(Repository(job.clone), "http://me:hunter2@127.0.0.1:1/x.git", "main").fetch()
    assert "hunter2" not in str(refused.value)


def test_it_is_the_branch_that_is_checked_out(job: Publisher) -> None:
    assert chosen(job) == ("origin", "main")


def test_it_is_the_one_that_the_branch_follows(job: Publisher) -> None:
    job.git("remote", "add", "second", "elsewhere")
    job.git("config", "branch.main.remote", "second")
    job.git("config", "branch.main.merge", "refs/heads/trunk")
    assert chosen(job) == ("second", "trunk")


def test_a_branch_that_is_named_need_not_be_there(job: Publisher) -> None:
    assert chosen(job, "release") == ("origin", "release")


def test_the_only_remote_may_have_any_name(job: Publisher) -> None:
    job.git("remote", "rename", "origin", "forge")
    assert chosen(job, "release") == ("forge", "release")


def test_branches_that_are_published_to_from_one_clone_are_kept_apart(job: Publisher) -> None:
    job.publish()
    run("git", "branch", "release", "main", cwd=job.upstream)
    job.bring({"more": "x"})
    repository = Repository(job.clone)
    tips = {name: Branch(repository, "origin", name).fetch() for name in ("main", "release")}
    there = {name: repository.resolve(pins.published("origin", name)) for name in tips}
    assert (there, len(set(there.values()))) == (tips, 2)


def test_no_ref_of_it_stays_behind(job: Publisher) -> None:
    job.publish()
    pins.remove(Repository(job.clone))
    assert "mirage-hooks" not in job.git("for-each-ref")
    assert not (job.clone / ".git" / "refs" / "mirage-hooks").exists()


def test_without_a_remote_there_is_nowhere_to_publish_to(job: Publisher) -> None:
    job.git("remote", "remove", "origin")
    with pytest.raises(RepositoryError, match="has no remote origin"):
        chosen(job)
