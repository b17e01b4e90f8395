"""What `make publish` of the site takes: what was built, as the commit that it was built from."""

from pathlib import Path

import pytest

from ci_files import GITLAB
from site_copy import RECORDER, SiteCopy, make
from support import run

PAGE = Path("pages") / "index.md"


@pytest.fixture
def publishing(copied: SiteCopy) -> SiteCopy:
    """A copy that records what would be published."""
    copied.put("mirage-hooks", RECORDER)
    return copied


def git(copied: SiteCopy, *arguments: str) -> str:
    """Run git in the copy; return what it printed."""
    return run("git", *arguments, cwd=copied.folder).stdout.strip()


def published(copied: SiteCopy) -> list[str]:
    """Return the calls that would have published something."""
    return [call for call in copied.calls() if call.startswith("mirage-hooks")]


def refused(copied: SiteCopy) -> str:
    """Publish, which is refused; return the first line that is said: make itself says more."""
    done = make(copied, "publish", check=False)
    assert (done.returncode, published(copied)) == (2, []), done.stderr
    return done.stderr.splitlines()[0]


def write(copied: SiteCopy, text: str) -> None:
    """Commit another page."""
    (copied.folder / PAGE).write_text(text)
    git(copied, "commit", "-q", "-a", "-m", text)


STALE = "nothing is published: what is checked out is not what was built: run `make build` again"


def uncommitted(change: str) -> str:
    """Return what is said where git has a change to show."""
    return (
        f"nothing is published: there are changes that are not committed ({change}): "
        "commit, then run `make build` again"
    )


@pytest.mark.parametrize(
    ("variant", "target", "image"),
    [("socket", "unix", "www"), ("spt", "spt", "www.spt"), ("xen", "xen", "www.xen")],
)
def test_what_was_built_last_is_published_with_the_commit_it_is_of(
    publishing: SiteCopy, variant: str, target: str, image: str
) -> None:
    make(publishing, f"configure.{variant}", "build")
    make(publishing, "publish", "DEPLOYMENT=/srv/deployment")
    unikernel = publishing.folder / "mirage"
    assert published(publishing) == [
        f"mirage-hooks -C /srv/deployment publish {unikernel}/dist/{image} --guest www "
        f"--target {target} --source-commit {git(publishing, 'rev-parse', 'HEAD')} "
        f"--with {unikernel}/config.ml"
    ]


def test_an_image_of_an_earlier_configuration_is_not_published(publishing: SiteCopy) -> None:
    make(publishing, "configure.xen", "build")
    make(publishing, "configure.spt")
    make(publishing, "configure.xen")
    assert "nothing is built" in refused(publishing)


def test_a_publish_that_fails_fails_make(publishing: SiteCopy) -> None:
    publishing.put("mirage-hooks", "#!/bin/sh\nexit 1\n")
    make(publishing, "configure.xen", "build")
    assert make(publishing, "publish", check=False).returncode == 2


# What is not committed.


def test_what_is_not_committed_is_not_published(publishing: SiteCopy) -> None:
    (publishing.folder / PAGE).write_text("changed\n")
    make(publishing, "configure.xen", "build")
    assert refused(publishing) == uncommitted(f"M {PAGE}")


@pytest.mark.parametrize("shown", ["no", "normal"])
def test_nor_is_a_page_that_git_does_not_know(publishing: SiteCopy, shown: str) -> None:
    git(publishing, "config", "status.showUntrackedFiles", shown)
    (publishing.folder / "pages" / "new.md").write_text("new\n")
    make(publishing, "configure.xen", "build")
    assert refused(publishing) == uncommitted("?? pages/new.md")


def test_what_git_ignores_is_no_change(publishing: SiteCopy) -> None:
    (publishing.folder / ".git" / "info" / "exclude").write_text("*.orig\n")
    publishing.folder.joinpath("pages", "index.md.orig").write_text("old\n")
    make(publishing, "configure.xen", "build", "publish")
    assert len(published(publishing)) == 1


# What was built from another commit, or from none.


def test_what_is_committed_after_a_build_is_not_published(publishing: SiteCopy) -> None:
    make(publishing, "configure.xen", "build")
    write(publishing, "another page")
    assert refused(publishing) == STALE


def test_it_is_once_it_is_built(publishing: SiteCopy) -> None:
    make(publishing, "configure.xen", "build")
    write(publishing, "another page")
    make(publishing, "build", "publish")
    (call,) = published(publishing)
    assert f"--source-commit {git(publishing, 'rev-parse', 'HEAD')} " in call


def test_changes_that_were_built_are_not_published_once_they_are_committed(
    publishing: SiteCopy,
) -> None:
    (publishing.folder / PAGE).write_text("changed\n")
    make(publishing, "configure.xen", "build")
    write(publishing, "changed")
    assert refused(publishing) == STALE


def test_nor_are_they_as_the_commit_without_them(publishing: SiteCopy) -> None:
    (publishing.folder / PAGE).write_text("changed\n")
    make(publishing, "configure.xen", "build")
    git(publishing, "checkout", "-q", ".")
    assert refused(publishing) == STALE


def test_a_commit_that_is_made_while_it_is_built_is_not_what_was_built(
    publishing: SiteCopy,
) -> None:
    commit = "git commit -q --allow-empty -m meanwhile"
    make(publishing, "configure.xen")
    recipe = publishing.folder / "mirage" / "Makefile"
    recipe.write_text(f"{recipe.read_text()} && {commit}\n".replace("\n &&", " &&"))
    make(publishing, "build")
    assert refused(publishing) == STALE


def test_a_build_that_fails_leaves_nothing_to_publish(publishing: SiteCopy) -> None:
    make(publishing, "configure.xen", "build")
    publishing.put("jekyll", "#!/bin/sh\nexit 3\n")
    assert make(publishing, "build", check=False).returncode == 2
    assert refused(publishing) == STALE


def test_what_was_built_outside_of_git_is_not_published(publishing: SiteCopy) -> None:
    (publishing.folder / ".git").rename(publishing.folder.parent / "gone")
    make(publishing, "configure.xen", "build")
    (publishing.folder.parent / "gone").rename(publishing.folder / ".git")
    assert refused(publishing) == STALE


def test_what_git_cannot_tell_is_said_in_its_own_words(publishing: SiteCopy) -> None:
    make(publishing, "configure.xen", "build")
    (publishing.folder / ".git").rename(publishing.folder / "gone")
    said = refused(publishing)
    assert ("not a git repository" in said, "nothing is published" in said) == (True, False)


# What is built in one place, and published in another.


def test_gitlabs_other_job_publishes_what_it_is_handed(publishing: SiteCopy) -> None:
    make(publishing, "configure.xen", "build")
    built = publishing.folder.rename(publishing.folder.with_name("built"))
    run("git", "clone", "-q", built, publishing.folder, cwd=built)
    for path in GITLAB.read()["xen"]["artifacts"]["paths"]:
        run("cp", "--recursive", "--parents", path, publishing.folder, cwd=built)
    make(publishing, "publish")
    assert len(published(publishing)) == 1
