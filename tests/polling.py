"""What tests of polls share: polling a site, and what it said and did."""

import subprocess
from pathlib import Path

from mirage_hooks.boot import journal
from support import Site, run


def poll(site: Site) -> subprocess.CompletedProcess[str]:
    """Run the script that polls, from a folder that has nothing to do with it."""
    return run(site.state.poll, cwd=Path("/"), check=False)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return all that a poll printed."""
    return done.stdout + done.stderr


def is_silent(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a poll went well and had nothing to say."""
    return (done.returncode, said(done)) == (0, "")


def events(site: Site) -> list[str]:
    """Return the kinds of all events, oldest first."""
    return [str(event["event"]) for event in journal.read(str(site.state.events))]


def commit_locally(site: Site, name: str = "local.txt", text: str = "local\n") -> str:
    """Commit a file where a person works; return the commit."""
    (site.here / name).write_text(text)
    site.git("add", name)
    site.git("commit", "-q", "-m", "local")
    return tip(site)


def commit_note(site: Site, text: str = "words\n") -> str:
    """Commit something upstream that no guest is made of; return the commit."""
    (site.upstream / "note.txt").write_text(text)
    return site.commit("a note")


def tip(site: Site, ref: str = "refs/heads/main") -> str:
    """Return the commit of a ref of the clone."""
    return run("git", "rev-parse", ref, cwd=site.clone).stdout.strip()


def rewrite_upstream(site: Site, page: str) -> str:
    """Have another history upstream, without its newest commit, with a page; return its tip."""
    run("git", "reset", "-q", "--hard", "HEAD^", cwd=site.upstream)
    (site.upstream / "rewritten.txt").write_text("rewritten\n")
    return site.publish(page)


def take_back_upstream(site: Site) -> str:
    """Take the newest commit of the upstream back; return its tip."""
    run("git", "reset", "-q", "--hard", "HEAD^", cwd=site.upstream)
    return run("git", "rev-parse", "HEAD", cwd=site.upstream).stdout.strip()
