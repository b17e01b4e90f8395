"""Reading the deployment repository: through git's objects, whatever state it is in."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_hooks.boot.environment import leave_operation
from mirage_hooks.boot.errors import ImageError, RepositoryError
from mirage_hooks.boot.repository import Repository
from support import Site, run


def commit(folder: Path, **files: str) -> str:
    """Commit files by their names; return the commit."""
    for name, text in files.items():
        (folder / name).write_text(text)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "change", cwd=folder)
    return run("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()


def loose(folder: Path, name: str) -> Path:
    """Return the file of a loose object."""
    oid = run("git", "rev-parse", name, cwd=folder).stdout.strip()
    return folder / ".git" / "objects" / oid[:2] / oid[2:]


# Opening.


def test_a_repository_is_found_from_a_folder_inside_it(folder: Path) -> None:
    inside = folder / "a" / "b"
    inside.mkdir(parents=True)
    assert Repository(inside).common_dir == folder / ".git"


def test_a_bare_repository_is_its_own_common_folder(tmp_path: Path) -> None:
    run("git", "init", "-q", "--bare", "bare.git", cwd=tmp_path)
    repository = Repository(tmp_path / "bare.git")
    assert (repository.common_dir, repository.name) == (
        tmp_path / "bare.git",
        str(tmp_path / "bare.git"),
    )


def test_a_linked_worktree_shares_the_common_folder_of_its_repository(folder: Path) -> None:
    commit(folder)
    run("git", "worktree", "add", "-q", "-b", "other", "../linked", cwd=folder)
    assert Repository(folder.parent / "linked").common_dir == folder / ".git"


def test_a_linked_worktree_is_known_by_its_own_path(folder: Path) -> None:
    commit(folder)
    run("git", "worktree", "add", "-q", "-b", "other", "../linked", cwd=folder)
    assert Repository(folder.parent / "linked").name == str(folder.parent / "linked")


@pytest.mark.parametrize("name", ["with space", "mort.io", "ünï", "-dash", "$HOME", "~"])
def test_a_repository_is_opened_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    run("git", "init", "-q", "--", name, cwd=tmp_path)
    assert Repository(tmp_path / name).name == str(tmp_path / name)


def test_a_folder_without_a_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError) as error:
        Repository(tmp_path)
    assert error.value.message == f"{tmp_path} is not in a git repository"


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="is not in a git repository"):
        Repository(tmp_path / "nowhere")


def test_a_file_is_refused_as_a_repository(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="is not in a git repository"):
        Repository(tmp_path / "file")


# The environment.


def left(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> dict[str, str]:
    """Return what of an environment is left when a git operation is left."""
    monkeypatch.setattr(os, "environ", environment)
    leave_operation()
    return environment


def test_nothing_that_git_calls_local_to_a_repository_is_left_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = run("git", "rev-parse", "--local-env-vars", cwd=Path("/")).stdout.split()
    assert left(monkeypatch, dict.fromkeys(names, "x")) == {}


def test_the_quarantine_of_a_push_is_not_left_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert left(monkeypatch, {"GIT_QUARANTINE_PATH": "/x"}) == {}


def test_the_rest_of_the_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"PATH": "/bin", "HOME": "/root", "GIT_SSH_COMMAND": "ssh", "SSH_AUTH_SOCK": "/run/x"}
    assert left(monkeypatch, {**kept, "GIT_DIR": "."}) == kept


# Branches.


def test_the_branch_that_is_checked_out_is_known(folder: Path) -> None:
    commit(folder)
    assert Repository(folder).head_branch() == "main"


def test_the_branch_that_is_to_be_born_is_known(folder: Path) -> None:
    assert Repository(folder).head_branch() == "main"


def test_a_detached_head_is_on_no_branch(folder: Path) -> None:
    commit(folder)
    run("git", "checkout", "-q", "--detach", cwd=folder)
    assert Repository(folder).head_branch() is None


def test_the_tip_of_a_branch_is_its_commit(folder: Path) -> None:
    assert commit(folder) == Repository(folder).tip("main").id


def test_the_tip_is_the_branchs_and_not_what_is_checked_out(folder: Path) -> None:
    first = commit(folder)
    run("git", "checkout", "-q", "-b", "other", cwd=folder)
    commit(folder)
    assert Repository(folder).tip("main").id == first


def test_the_tip_is_the_branchs_and_not_a_tags_of_the_same_name(folder: Path) -> None:
    run("git", "tag", "main", commit(folder), cwd=folder)
    second = commit(folder)
    assert Repository(folder).tip("main").id == second


@pytest.mark.parametrize(
    "branch", ["feature/x", "v@2", "@x", "deadbeef", "1", "a-g1234567", "ünï", "a{b", "a.b"]
)
def test_a_branch_is_read_whatever_it_is_called(folder: Path, branch: str) -> None:
    tip = commit(folder)
    run("git", "branch", branch, cwd=folder)
    assert Repository(folder).tip(branch).id == tip


def test_a_packed_branch_is_read(folder: Path) -> None:
    tip = commit(folder)
    run("git", "pack-refs", "--all", cwd=folder)
    assert Repository(folder).tip("main").id == tip


def test_an_open_repository_sees_commits_that_came_later(folder: Path) -> None:
    commit(folder)
    repository = Repository(folder)
    repository.tip("main").find("page")
    second = commit(folder, page="two")
    run("git", "gc", "-q", cwd=folder)
    tip = repository.tip("main")
    blob = tip.find("page")
    assert blob is not None
    assert (tip.id, blob.text(10)) == (second, "two")


def test_a_branch_without_a_commit_is_refused(folder: Path) -> None:
    with pytest.raises(RepositoryError) as error:
        Repository(folder).tip("main")
    assert error.value.message == f"branch main of {folder} has no commit"


@pytest.mark.parametrize("name", ["main~1", "main^", "main@{0}", "main^{tree}", "main:page", ".."])
def test_what_only_leads_to_a_commit_is_no_branch(folder: Path, name: str) -> None:
    commit(folder, page="one")
    commit(folder, page="two")
    with pytest.raises(RepositoryError, match="has no commit"):
        Repository(folder).tip(name)


def test_any_name_of_a_branch_has_a_commit_or_is_refused(folder: Path) -> None:
    tip = commit(folder)
    repository = Repository(folder)

    @settings(max_examples=100, deadline=None)
    @given(st.text(alphabet="main/^~@{}:.-01 *[\\") | st.text(st.characters(codec="utf-8")))
    def property_holds(name: str) -> None:
        try:
            found = repository.tip(name)
        except RepositoryError:
            return
        assert found.id == tip

    property_holds()


# Files.


def test_a_file_is_read_by_its_path(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c").write_bytes(b"text")
    commit(folder)
    blob = Repository(folder).tip("main").find("a/b/c")
    assert blob is not None
    assert (blob.path, blob.size, blob.text(10)) == ("a/b/c", 4, "text")


def test_a_file_is_known_by_its_object_id(folder: Path) -> None:
    commit(folder, page="one")
    blob = Repository(folder).tip("main").find("page")
    assert blob is not None
    assert blob.oid == run("git", "rev-parse", "HEAD:page", cwd=folder).stdout.strip()


def test_a_dirty_work_tree_is_not_looked_at(folder: Path) -> None:
    commit(folder, page="committed")
    (folder / "page").write_text("dirty")
    blob = Repository(folder).tip("main").find("page")
    assert blob is not None
    assert blob.text(100) == "committed"


def test_a_bare_repository_is_read(site: Site) -> None:
    run("git", "clone", "-q", "--bare", "upstream", "bare.git", cwd=site.upstream.parent)
    blob = Repository(site.upstream.parent / "bare.git").tip("main").find("mirage-hooks.toml")
    assert blob is not None
    assert blob.text(1 << 20) == site.manifest()


@pytest.mark.parametrize("path", ["nothing", "a/nothing", "nothing/b", "a/b/c", ".git/config"])
def test_where_there_is_nothing_nothing_is_found(folder: Path, path: str) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "b").touch()
    commit(folder)
    assert Repository(folder).tip("main").find(path) is None


@pytest.mark.parametrize("path", ["", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../a/b"])
def test_a_path_that_git_would_not_store_finds_nothing(folder: Path, path: str) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "b").touch()
    commit(folder)
    assert Repository(folder).tip("main").find(path) is None


def test_a_folder_is_no_file(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "c").touch()
    commit(folder)
    with pytest.raises(RepositoryError) as error:
        Repository(folder).tip("main").find("a/b")
    assert error.value.message == "a/b is a folder, no file"


@pytest.mark.parametrize("target", ["page", "nowhere", "/etc/passwd", "../outside"])
def test_a_symbolic_link_is_no_file_wherever_it_leads(folder: Path, target: str) -> None:
    (folder / "link").symlink_to(target)
    commit(folder, page="one")
    with pytest.raises(RepositoryError) as error:
        Repository(folder).tip("main").find("link")
    assert error.value.message == "link is a symbolic link, no file"


def test_a_path_through_a_symbolic_link_is_refused(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "page").touch()
    (folder / "link").symlink_to("a")
    commit(folder)
    with pytest.raises(RepositoryError) as error:
        Repository(folder).tip("main").find("link/page")
    assert error.value.message == "link is a symbolic link, no file"


@pytest.mark.parametrize("path", ["vendor", "vendor/page"])
def test_a_submodule_and_a_path_through_it_are_refused(folder: Path, path: str) -> None:
    linked = commit(folder)
    run("git", "update-index", "--add", "--cacheinfo", f"160000,{linked},vendor", cwd=folder)
    run("git", "commit", "-q", "-m", "submodule", cwd=folder)
    with pytest.raises(RepositoryError) as error:
        Repository(folder).tip("main").find(path)
    assert error.value.message == "vendor is a submodule, no file"


def test_a_name_that_is_no_text_beside_a_file_does_no_harm(folder: Path) -> None:
    (folder / os.fsdecode(b"a\xff")).touch()
    commit(folder, page="one")
    assert Repository(folder).tip("main").find("page") is not None


def test_a_file_longer_than_it_may_be_is_refused(folder: Path) -> None:
    commit(folder, page="x" * 11)
    blob = Repository(folder).tip("main").find("page")
    assert blob is not None
    with pytest.raises(RepositoryError) as error:
        blob.text(10)
    assert error.value.message == "page has 11 bytes, more than 10"


def test_a_file_that_is_no_text_is_refused_as_text(folder: Path) -> None:
    (folder / "page").write_bytes(b"\xff\xfe")
    commit(folder)
    blob = Repository(folder).tip("main").find("page")
    assert blob is not None
    with pytest.raises(RepositoryError, match="page is not UTF-8 text"):
        blob.text(10)


def test_any_bytes_are_read_as_they_were_committed(folder: Path) -> None:
    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=5000))
    def property_holds(data: bytes) -> None:
        (folder / "page").write_bytes(data)
        commit(folder)
        blob = Repository(folder).tip("main").find("page")
        assert blob is not None
        with blob.open() as stream:
            assert stream.read() == data

    property_holds()


def test_a_stream_that_was_not_read_to_its_end_disturbs_no_other(folder: Path) -> None:
    commit(folder, one="1" * 100_000, two="two")
    revision = Repository(folder).tip("main")
    one, two = revision.find("one"), revision.find("two")
    assert one is not None
    assert two is not None
    with one.open() as begun:
        assert begun.read(10) == b"1" * 10
        assert two.text(10) == "two"


def test_who_makes_nothing_of_a_blob_that_git_did_not_hand_out_whole_is_not_to_blame(
    folder: Path,
) -> None:
    commit(folder, page="1" * (4 << 20))
    blob = Repository(folder).tip("main").find("page")
    assert blob is not None
    with pytest.raises(RepositoryError, match="git cannot read page"), blob.open() as stream:
        stream.read(10)
        [git] = [one for one in psutil.Process().children() if "blob" in one.cmdline()]
        git.kill()
        stream.read()
        raise ImageError("page is cut short")


def test_who_makes_nothing_of_a_blob_that_git_handed_out_whole_says_why(folder: Path) -> None:
    commit(folder, page="1" * (4 << 20))
    blob = Repository(folder).tip("main").find("page")
    assert blob is not None
    with pytest.raises(ImageError, match="page is cut short"), blob.open() as stream:
        stream.read()
        raise ImageError("page is cut short")


# Folders.


@pytest.fixture
def stocked(folder: Path) -> Path:
    """A repository with what a folder can hold: at its root, and in `a`."""
    for place in (folder, folder / "a"):
        (place / "deep").mkdir(parents=True)
        (place / "deep" / "file").touch()
        (place / "page").touch()
        (place / "link").symlink_to("page")
    linked = commit(folder)
    for path in ("vendor", "a/vendor"):
        run("git", "update-index", "--add", "--cacheinfo", f"160000,{linked},{path}", cwd=folder)
    run("git", "commit", "-q", "-m", "submodules", cwd=folder)
    return folder


@pytest.mark.parametrize("path", ["", "a"])
def test_the_files_of_a_folder_are_its_regular_ones(stocked: Path, path: str) -> None:
    assert Repository(stocked).tip("main").files(path) == ["page"]


@pytest.mark.parametrize(("path", "folders"), [("", ["a", "deep"]), ("a", ["deep"])])
def test_the_folders_of_a_folder_are_told(stocked: Path, path: str, folders: list[str]) -> None:
    assert Repository(stocked).tip("main").folders(path) == folders


@pytest.mark.parametrize("path", ["nothing", "page", "page/x", "a/page", "/", "a/", "..", "."])
def test_what_is_no_folder_holds_no_files(stocked: Path, path: str) -> None:
    assert Repository(stocked).tip("main").files(path) == []


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("link", "link is a symbolic link"),
        ("a/link", "a/link is a symbolic link"),
        ("vendor", "vendor is a submodule"),
        ("vendor/x", "vendor is a submodule"),
    ],
)
def test_what_is_neither_a_file_nor_a_folder_is_not_listed(
    stocked: Path, path: str, what: str
) -> None:
    with pytest.raises(RepositoryError) as error:
        Repository(stocked).tip("main").files(path)
    assert error.value.message == f"{what}, no folder"


# History.


def test_files_are_told_by_the_commits_that_added_them_newest_first(folder: Path) -> None:
    commit(folder, b="1")
    commit(folder, c="1", a="1")
    commit(folder, b="2")
    assert Repository(folder).tip("main").added(["*"], 2) == ["a", "c", "b"]


def test_no_more_commits_are_told_of_than_was_asked(folder: Path) -> None:
    commit(folder, a="1")
    commit(folder, b="1")
    assert Repository(folder).tip("main").added(["*"], 1) == ["b"]


def test_only_what_the_patterns_take_is_told(folder: Path) -> None:
    commit(folder, **{"a.x": "1", "b.y": "1"})
    assert Repository(folder).tip("main").added(["*.x", "*.z"], 9) == ["a.x"]


def test_a_file_that_is_gone_is_still_told(folder: Path) -> None:
    commit(folder, a="1")
    (folder / "a").unlink()
    commit(folder)
    assert Repository(folder).tip("main").added(["*"], 9) == ["a"]


def test_a_history_with_a_commit_missing_is_the_repositorys_fault(folder: Path) -> None:
    commit(folder, a="1")
    missing = loose(folder, "HEAD")
    commit(folder, a="2")
    missing.unlink()
    with pytest.raises(RepositoryError, match="git cannot read the history"):
        Repository(folder).tip("main").added(["*"], 9)


# Damage.


@pytest.mark.parametrize("name", ["HEAD:a/page", "HEAD:a", "HEAD:"], ids=["blob", "folder", "root"])
def test_an_object_that_is_missing_is_the_repositorys_fault(folder: Path, name: str) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "page").touch()
    commit(folder)
    loose(folder, name).unlink()
    with pytest.raises(RepositoryError):
        found = Repository(folder).tip("main").find("a/page")
        assert found is not None
        found.text(10)


@pytest.mark.parametrize("name", ["HEAD:a", "HEAD:"], ids=["folder", "root"])
def test_a_folder_that_is_missing_is_the_repositorys_fault(folder: Path, name: str) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "page").touch()
    commit(folder)
    loose(folder, name).unlink()
    with pytest.raises(RepositoryError):
        Repository(folder).tip("main").files("a")


def test_an_object_that_is_damaged_is_the_repositorys_fault(folder: Path) -> None:
    commit(folder, page="one")
    damaged = loose(folder, "HEAD:page")
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:8])
    with pytest.raises(RepositoryError):
        found = Repository(folder).tip("main").find("page")
        assert found is not None
        found.text(10)


def test_a_commit_that_is_missing_is_the_repositorys_fault(folder: Path) -> None:
    commit(folder)
    loose(folder, "HEAD").unlink()
    with pytest.raises(RepositoryError):
        Repository(folder).tip("main")


# What the fast path and the status ask.


def test_objects_are_identified_a_line_each(folder: Path) -> None:
    commit(folder, one="1", two="2")
    ids = [run("git", "rev-parse", f"HEAD:{name}", cwd=folder).stdout for name in ("one", "two")]
    assert Repository(folder).identify(["main:one", "main:two"]) == "".join(ids)


def test_an_object_that_is_not_there_has_a_line_of_its_own(folder: Path) -> None:
    commit(folder)
    assert Repository(folder).identify(["main:nothing"]) == "main:nothing missing\n"


def test_no_names_identify_nothing(folder: Path) -> None:
    assert Repository(folder).identify([]) == ""


def test_more_names_than_a_pipe_holds_are_identified(folder: Path) -> None:
    commit(folder, one="1")
    assert Repository(folder).identify(["main:one"] * 20_000).count("\n") == 20_000


def test_identities_are_those_that_git_gives(folder: Path) -> None:
    commit(folder, **{"with space": "1"})
    names = ["main:with space", "main:nothing at all", "nobranch:x"]
    asked = subprocess.run(
        ["git", "cat-file", "--batch-check=%(objectname)"],
        cwd=folder,
        input="".join(f"{name}\n" for name in names),
        capture_output=True,
        text=True,
        check=True,
    )
    assert Repository(folder).identify(names) == asked.stdout


def test_a_clone_knows_how_far_it_is_behind(site: Site) -> None:
    site.publish("two")
    site.publish("three")
    site.git("fetch", "-q")
    assert Repository(site.clone).behind("main") == 2


def test_a_branch_without_an_upstream_is_behind_nothing(folder: Path) -> None:
    commit(folder)
    assert Repository(folder).behind("main") is None


def test_a_repository_that_never_fetched_says_so(folder: Path) -> None:
    assert Repository(folder).last_fetch(folder / "none") is None


def test_a_repository_knows_when_it_last_fetched(site: Site) -> None:
    site.git("fetch", "-q")
    os.utime(site.clone / ".git" / "FETCH_HEAD", (1000.0, 1000.0))
    assert Repository(site.clone).last_fetch(site.state.fetched) == 1000.0


def test_a_fetch_that_failed_is_none(site: Site) -> None:
    site.git("fetch", "-q")
    site.upstream.rename(site.upstream.with_name("moved"))
    site.git("fetch", "-q", check=False)
    assert Repository(site.clone).last_fetch(site.state.fetched) is None


def test_the_id_of_what_is_at_a_path_is_git_s(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("text\n")
    (folder / "link").symlink_to("sub/file")
    commit(folder)
    revision = Repository(folder).tip("main")
    for path in ("sub", "sub/file", "link"):
        asked = run("git", "rev-parse", f"main:{path}", cwd=folder).stdout.strip()
        assert revision.oid(path) == asked


@pytest.mark.parametrize("path", ["nothing", "sub/nothing", "link/file", "sub/file/below"])
def test_what_is_not_there_has_no_id(folder: Path, path: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("text\n")
    (folder / "link").symlink_to("sub")
    commit(folder)
    assert Repository(folder).tip("main").oid(path) is None
