"""What a repository without a manifest holds, told by the conventions of existing repositories."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_hooks.boot.artifact import Missing, locate
from mirage_hooks.boot.convention import Found, disks, find, site
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision
from support import run

SHA = "4f0c" * 10
OLD = "00d1" * 10
NEW = "9e37" * 10


def change(folder: Path, *files: str, pointers: dict[str, str] | None = None) -> None:
    """Write images, each with its own path in it, and pointers; commit nothing."""
    texts = {path: f"{path}\n" for path in files}
    texts.update({path: f"{value}\n" for path, value in (pointers or {}).items()})
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def commit(folder: Path, *files: str, pointers: dict[str, str] | None = None) -> Revision:
    """Commit images and pointers beside what is there; return the revision."""
    change(folder, *files, pointers=pointers)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "change", cwd=folder)
    return Repository(folder).tip("main")


def prune(folder: Path, *paths: str) -> None:
    """Take images out of the tree, as those who keep repositories small do; commit nothing."""
    for path in paths:
        (folder / path).unlink()


def names(revision: Revision) -> list[str]:
    return [found.name for found in find(revision).guests]


def images(revision: Revision) -> list[str]:
    return [found.image for found in find(revision).guests]


def told_by(revision: Revision) -> list[str]:
    return [found.where for found in find(revision).guests]


# A pointer, and the images in the folder that it names.


def test_a_pointer_in_the_folder_of_a_target_leads_to_a_guest(folder: Path) -> None:
    revision = commit(folder, f"xen/{SHA}/mortio.xen.bz2", pointers={"xen/latest": SHA})
    where = f"xen/{SHA}/mortio.xen.bz2"
    found = Found("mortio", "xen", "xen/{latest}/mortio.xen.bz2", where)
    assert find(revision).guests == (found,)


def test_a_pointer_at_the_root_leads_to_a_guest(folder: Path) -> None:
    revision = commit(folder, f"{SHA}/mir-www.xen.bz2", pointers={"latest": SHA})
    found = Found("www", "xen", "{latest}/mir-www.xen.bz2", f"{SHA}/mir-www.xen.bz2")
    assert find(revision).guests == (found,)


def test_a_pointer_may_be_in_any_folder_of_the_root(folder: Path) -> None:
    revision = commit(folder, f"images/{SHA}/www.hvt", pointers={"images/latest": SHA})
    assert images(revision) == ["images/{latest}/www.hvt"]


def test_a_pointer_further_down_is_not_looked_for(folder: Path) -> None:
    revision = commit(folder, f"a/b/{SHA}/www.hvt", pointers={"a/b/latest": SHA})
    assert find(revision).guests == ()


def test_a_pointer_may_name_a_folder_that_is_no_commit(folder: Path) -> None:
    revision = commit(folder, "xen/by-hand/www.xen", pointers={"xen/latest": "by-hand"})
    assert told_by(revision) == ["xen/by-hand/www.xen"]


def test_only_the_folder_that_a_pointer_names_counts(folder: Path) -> None:
    revision = commit(
        folder, f"xen/{OLD}/old.xen", f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA}
    )
    assert names(revision) == ["www"]


def test_only_the_folder_that_a_pointer_at_the_root_names_counts(folder: Path) -> None:
    revision = commit(folder, f"{OLD}/old.xen", f"{SHA}/www.xen", pointers={"latest": SHA})
    assert names(revision) == ["www"]


def test_what_lies_beside_a_pointer_is_no_guest(folder: Path) -> None:
    revision = commit(folder, "xen/stray.xen", f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA})
    assert names(revision) == ["www"]


def test_a_folder_without_a_pointer_beside_one_with_a_pointer_holds_nothing(folder: Path) -> None:
    revision = commit(
        folder, f"other/{SHA}/other.xen", f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA}
    )
    assert names(revision) == ["www"]


def test_pointers_at_the_root_and_in_a_folder_are_both_followed(folder: Path) -> None:
    pointers = {"latest": OLD, "xen/latest": SHA}
    revision = commit(folder, f"{OLD}/www.xen", f"xen/{SHA}/www.xen", pointers=pointers)
    assert images(revision) == ["xen/{latest}/www.xen", "{latest}/www.xen"]


# Names of images.


@pytest.mark.parametrize(
    ("file", "name", "target"),
    [
        ("mir-www.xen.bz2", "www", "xen"),
        ("mortio.xen.bz2", "mortio", "xen"),
        ("mort.io.xen.bz2", "mort.io", "xen"),
        ("www.xen.gz", "www", "xen"),
        ("www.xen.xz", "www", "xen"),
        ("www.xen.zst", "www", "xen"),
        ("www.xen", "www", "xen"),
        ("www.unix", "www", "unix"),
        ("www.hvt", "www", "hvt"),
        ("www.spt.bz2", "www", "spt"),
        ("www.virtio", "www", "virtio"),
        ("www.xen.spt", "www.xen", "spt"),
        ("my_site-2.hvt", "my_site-2", "hvt"),
        ("mirror.xen", "mirror", "xen"),
    ],
)
def test_an_image_tells_its_guest_and_its_target(
    folder: Path, file: str, name: str, target: str
) -> None:
    revision = commit(folder, f"xen/{SHA}/{file}", pointers={"xen/latest": SHA})
    assert [(one.name, one.target) for one in find(revision).guests] == [(name, target)]


@pytest.mark.parametrize(
    "file",
    [
        *("config.ml", "packages", "www.map", "www.xen.map", "www.xl.in", "www.xl", "fat1.img.bz2"),
        *("fat1.img", "www.xen.sha256", "www.xen.bz2.sha256", "www.xen.asc", "www.xen.Z", "xen"),
        *(".xen", "mir-.xen", "www.xen.bz2.gz", "www.XEN", "www.genode", "wwwxen", "www.xen.bz2~"),
        *("2048.xen", "w w.xen", "-www.xen", "w\nw.xen", "wéw.xen", "a" * 101 + ".xen"),
    ],
)
def test_what_lies_beside_images_is_no_guest(folder: Path, file: str) -> None:
    revision = commit(folder, f"xen/{SHA}/{file}", pointers={"xen/latest": SHA})
    assert find(revision).guests == ()


def test_a_folder_called_as_an_image_is_none(folder: Path) -> None:
    revision = commit(folder, f"xen/{SHA}/www.xen/README", pointers={"xen/latest": SHA})
    assert find(revision).guests == ()


def test_a_symbolic_link_called_as_an_image_is_none(folder: Path) -> None:
    change(folder, f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA})
    (folder / "xen" / SHA / "link.xen").symlink_to("www.xen")
    assert names(commit(folder)) == ["www"]


def test_an_executable_image_is_one(folder: Path) -> None:
    change(folder, f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA})
    (folder / "xen" / SHA / "www.xen").chmod(0o755)
    assert names(commit(folder)) == ["www"]


# Several guests.


def test_every_image_of_a_folder_is_a_guest(folder: Path) -> None:
    files = [f"xen/{SHA}/{name}" for name in ("www.xen.bz2", "mir-blog.xen.bz2", "dns.xen")]
    assert names(commit(folder, *files, pointers={"xen/latest": SHA})) == ["blog", "dns", "www"]


def test_a_guest_of_two_targets_is_found_with_both(folder: Path) -> None:
    pointers = {"xen/latest": SHA, "unix/latest": OLD}
    revision = commit(folder, f"xen/{SHA}/www.xen", f"unix/{OLD}/www.unix", pointers=pointers)
    assert [(one.name, one.target) for one in find(revision).guests] == [
        ("www", "unix"),
        ("www", "xen"),
    ]


def test_an_image_compressed_in_two_ways_is_found_with_both(folder: Path) -> None:
    files = [f"xen/{SHA}/www.xen.gz", f"xen/{SHA}/www.xen.bz2"]
    revision = commit(folder, *files, pointers={"xen/latest": SHA})
    assert images(revision) == ["xen/{latest}/www.xen.bz2", "xen/{latest}/www.xen.gz"]


# Images that are not there (any more, or yet): history tells.


def test_a_folder_whose_images_were_pruned_is_told_by_history(folder: Path) -> None:
    commit(folder, f"xen/{SHA}/www.xen.bz2", f"xen/{SHA}/config.ml", pointers={"xen/latest": SHA})
    prune(folder, f"xen/{SHA}/www.xen.bz2")
    where = f"xen/{SHA}/www.xen.bz2"
    assert find(commit(folder)).guests == (Found("www", "xen", "xen/{latest}/www.xen.bz2", where),)


def test_a_pruned_folder_of_a_pointer_at_the_root_is_told_by_history(folder: Path) -> None:
    commit(folder, f"{SHA}/mir-www.xen.bz2", f"{SHA}/config.ml", pointers={"latest": SHA})
    prune(folder, f"{SHA}/mir-www.xen.bz2")
    assert images(commit(folder)) == ["{latest}/mir-www.xen.bz2"]


def test_a_pointer_that_moved_before_its_image_is_told_by_the_last_image(folder: Path) -> None:
    commit(folder, f"xen/{OLD}/old.xen", pointers={"xen/latest": OLD})
    commit(folder, f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA})
    revision = commit(folder, f"xen/{NEW}/config.ml", pointers={"xen/latest": NEW})
    assert told_by(revision) == [f"xen/{SHA}/www.xen"]


def test_images_added_to_one_folder_by_two_jobs_are_both_told_by_history(folder: Path) -> None:
    files = [f"xen/{SHA}/blog.xen", f"xen/{SHA}/www.xen"]
    commit(folder, f"xen/{OLD}/old.xen", pointers={"xen/latest": OLD})
    commit(folder, files[0], pointers={"xen/latest": SHA})
    commit(folder, "scripts/boot.sh")
    commit(folder, files[1], f"xen/{SHA}/config.ml")
    prune(folder, *files)
    assert names(commit(folder)) == ["blog", "www"]


def test_the_folder_pointed_at_tells_before_one_that_was_filled_later(folder: Path) -> None:
    commit(folder, f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA})
    commit(folder, f"xen/{NEW}/new.xen")
    prune(folder, f"xen/{SHA}/www.xen")
    assert names(commit(folder, f"xen/{SHA}/config.ml")) == ["www"]


def test_an_image_that_moved_into_another_folder_counts_as_added_there(folder: Path) -> None:
    commit(folder, f"xen/{OLD}/www.xen", f"xen/{OLD}/old.xen", pointers={"xen/latest": OLD})
    (folder / "xen" / OLD / "www.xen").rename((folder / "xen").joinpath("www.xen"))
    (folder / "xen" / SHA).mkdir()
    (folder / "xen" / "www.xen").rename(folder / "xen" / SHA / "www.xen")
    commit(folder)
    revision = commit(folder, pointers={"xen/latest": NEW})
    assert told_by(revision) == [f"xen/{SHA}/www.xen"]


def test_an_image_added_twice_is_told_once(folder: Path) -> None:
    for _ in range(2):
        commit(folder, f"xen/{SHA}/www.xen", f"xen/{SHA}/config.ml", pointers={"xen/latest": SHA})
        prune(folder, f"xen/{SHA}/www.xen")
        revision = commit(folder)
    assert names(revision) == ["www"]


def test_an_image_that_a_merge_brought_and_then_was_pruned_is_told_by_history(folder: Path) -> None:
    commit(folder, f"xen/{OLD}/config.ml", pointers={"xen/latest": OLD})
    run("git", "checkout", "-q", "-b", "ci", cwd=folder)
    commit(folder, f"xen/{SHA}/www.xen", f"xen/{SHA}/config.ml", pointers={"xen/latest": SHA})
    prune(folder, f"xen/{SHA}/www.xen")
    commit(folder)
    run("git", "checkout", "-q", "main", cwd=folder)
    commit(folder, "local.txt")
    run("git", "merge", "-q", "--no-edit", "ci", cwd=folder)
    assert names(Repository(folder).tip("main")) == ["www"]


def test_history_of_another_folder_tells_nothing(folder: Path) -> None:
    commit(folder, f"unix/{SHA}/www.unix", pointers={"unix/latest": SHA})
    revision = commit(folder, f"xen/{SHA}/config.ml", pointers={"xen/latest": SHA})
    assert names(revision) == ["www"]


def test_history_after_the_revision_tells_nothing(folder: Path) -> None:
    commit(folder, f"xen/{SHA}/config.ml", pointers={"xen/latest": SHA})
    run("git", "branch", "early", cwd=folder)
    commit(folder, f"xen/{SHA}/www.xen")
    assert find(Repository(folder).tip("early")).guests == ()


def test_images_of_a_shallow_clone_are_told_by_its_oldest_commit(folder: Path) -> None:
    commit(folder, f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA})
    commit(folder, f"xen/{NEW}/config.ml", pointers={"xen/latest": NEW})
    run("git", "clone", "-q", "--depth=1", folder.as_uri(), "../shallow", cwd=folder)
    assert names(Repository(folder.parent / "shallow").tip("main")) == ["www"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("log.showRoot", "false"),
        ("log.showSignature", "true"),
        ("diff.renames", "copies"),
        ("diff.relative", "true"),
        ("core.quotePath", "true"),
        ("log.decorate", "full"),
        ("format.pretty", "fuller"),
        ("diff.noprefix", "true"),
    ],
)
def test_history_is_read_alike_whatever_git_is_set_to(folder: Path, key: str, value: str) -> None:
    run("git", "config", key, value, cwd=folder)
    change(folder, f"xén/{SHA}/www.xen", f"xén/{SHA}/config.ml", pointers={"xén/latest": SHA})
    commit(folder)
    prune(folder, f"xén/{SHA}/www.xen")
    assert told_by(commit(folder)) == [f"xén/{SHA}/www.xen"]


@pytest.mark.parametrize("top", ["x*n", "[x]en", "x?n", "x\\n", ":(top)xen", "!xen"])
def test_the_history_of_a_folder_with_an_odd_name_is_its_own(folder: Path, top: str) -> None:
    commit(
        folder, f"{top}/{SHA}/www.xen", f"{top}/{SHA}/config.ml", pointers={f"{top}/latest": SHA}
    )
    prune(folder, f"{top}/{SHA}/www.xen")
    commit(folder)
    revision = commit(folder, f"xen/{SHA}/other.xen")
    assert told_by(revision) == [f"{top}/{SHA}/www.xen"]


def test_thousands_of_commits_since_the_last_image_are_walked(folder: Path) -> None:
    commit(folder, f"xen/{SHA}/www.xen", f"xen/{SHA}/config.ml", pointers={"xen/latest": SHA})
    prune(folder, f"xen/{SHA}/www.xen")
    commit(folder)
    run("sh", "-c", many_commits(5000), cwd=folder)
    assert names(Repository(folder).tip("main")) == ["www"]


def many_commits(count: int) -> str:
    """Return the shell command that adds so many commits of a script to main."""
    return (
        f"i=0; from=refs/heads/main^0; while [ $i -lt {count} ]; do i=$((i + 1)); "
        'printf "commit refs/heads/main\\ncommitter T <t@example.org> $((2000000000 + i)) +0000\\n'
        'data 0\\n${from:+from $from\\n}M 100644 inline boot.sh\\ndata <<E\\n$i\\nE\\n\\n"; from=; '
        "done | git fast-import --quiet"
    )


def test_a_folder_called_as_an_image_is_none_in_history_either(folder: Path) -> None:
    commit(folder, f"xen/{SHA}/www.xen/blog.xen", pointers={"xen/latest": SHA})
    assert find(Repository(folder).tip("main")).guests == ()


# Plain paths.


def test_an_image_in_the_folder_of_a_target_without_a_pointer_is_a_plain_path(folder: Path) -> None:
    found = Found("www", "unix", "unix/www.unix", "unix/www.unix")
    assert find(commit(folder, "unix/www.unix")).guests == (found,)


def test_an_image_at_the_root_without_a_pointer_is_a_plain_path(folder: Path) -> None:
    assert images(commit(folder, "mir-www.xen.gz")) == ["mir-www.xen.gz"]


def test_an_image_in_another_folder_without_a_pointer_is_no_guest(folder: Path) -> None:
    assert find(commit(folder, "attic/www.unix")).guests == ()


def test_an_image_below_the_folder_of_a_target_without_a_pointer_is_no_guest(folder: Path) -> None:
    assert find(commit(folder, f"unix/{SHA}/www.unix")).guests == ()


# Damage.


@pytest.mark.parametrize("text", [b"a\nb\n", b"..", b"a/b", b"", b"-x", b"a\0b", b"x" * 2000])
def test_a_damaged_pointer_is_a_problem(folder: Path, text: bytes) -> None:
    change(folder, f"xen/{SHA}/www.xen")
    (folder / "xen" / "latest").write_bytes(text)
    found = find(commit(folder))
    assert found.guests == ()
    assert "xen/latest" in found.problems[0].message


def test_a_pointer_that_is_no_text_is_a_problem(folder: Path) -> None:
    change(folder, f"xen/{SHA}/www.xen")
    (folder / "xen" / "latest").write_bytes(b"\xff\xfe")
    assert [one.message for one in find(commit(folder)).problems] == [
        "xen/latest is not UTF-8 text"
    ]


def test_a_damaged_pointer_leaves_the_other_folders_as_they_are(folder: Path) -> None:
    pointers = {"unix/latest": "..", "xen/latest": SHA}
    assert names(commit(folder, f"xen/{SHA}/www.xen", pointers=pointers)) == ["www"]


def test_a_damaged_pointer_at_the_root_leaves_the_folders_as_they_are(folder: Path) -> None:
    pointers = {"latest": "..", "xen/latest": SHA}
    assert names(commit(folder, f"xen/{SHA}/www.xen", pointers=pointers)) == ["www"]


@pytest.mark.parametrize("target", [SHA, "..", "nowhere"])
def test_a_pointer_that_is_a_symbolic_link_is_none(folder: Path, target: str) -> None:
    change(folder, f"xen/{SHA}/www.xen")
    (folder / "xen" / "latest").symlink_to(target)
    assert find(commit(folder)).guests == ()


def test_a_pointer_that_is_a_folder_is_none(folder: Path) -> None:
    assert find(commit(folder, "xen/latest/www.xen")).guests == ()


def test_a_folder_pointed_at_that_is_a_symbolic_link_is_a_problem(folder: Path) -> None:
    change(folder, f"xen/{SHA}/www.xen", pointers={"xen/latest": NEW})
    (folder / "xen" / NEW).symlink_to(SHA)
    assert [one.message for one in find(commit(folder)).problems] == [
        f"xen/{NEW} is a symbolic link, no folder"
    ]


def test_a_pointer_to_a_file_leads_to_nothing(folder: Path) -> None:
    revision = commit(folder, "xen/www.xen", pointers={"xen/latest": "www.xen"})
    assert find(revision).guests == ()


def test_a_submodule_in_the_root_is_no_folder(folder: Path) -> None:
    linked = commit(folder).id
    run("git", "update-index", "--add", "--cacheinfo", f"160000,{linked},xen", cwd=folder)
    run("git", "commit", "-q", "-m", "submodule", cwd=folder)
    assert find(Repository(folder).tip("main")).guests == ()


def test_a_folder_that_host_toml_could_not_name_is_a_problem(folder: Path) -> None:
    revision = commit(folder, f"x\x1bn/{SHA}/www.xen", pointers={"x\x1bn/latest": SHA})
    assert "is no path inside the repository" in find(revision).problems[0].message


def test_a_folder_whose_name_is_no_text_does_no_harm(folder: Path) -> None:
    change(folder, "unix/www.unix")
    (folder / os.fsdecode(b"a\xff")).mkdir()
    (folder / os.fsdecode(b"a\xff") / "latest").write_text(SHA)
    assert names(commit(folder)) == ["www"]


def test_a_history_that_git_cannot_read_is_a_problem(folder: Path) -> None:
    first = commit(folder, f"xen/{SHA}/config.ml").id
    revision = commit(folder, pointers={"xen/latest": SHA})
    (folder / ".git" / "objects" / first[:2] / first[2:]).unlink()
    assert "git cannot read the history" in find(revision).problems[0].message


def test_a_root_that_git_cannot_read_is_the_repositorys_fault(folder: Path) -> None:
    revision = commit(folder, "xen/www.xen")
    tree = run("git", "rev-parse", "HEAD^{tree}", cwd=folder).stdout.strip()
    (folder / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(RepositoryError):
        find(revision)


# Whatever a repository holds.


def test_an_empty_repository_holds_nothing(folder: Path) -> None:
    assert find(commit(folder)).guests == ()


def test_what_is_not_committed_is_not_looked_at(folder: Path) -> None:
    revision = commit(folder, "README")
    change(folder, f"xen/{SHA}/www.xen", pointers={"xen/latest": SHA})
    assert find(revision).guests == ()


def test_a_bare_repository_is_read(folder: Path) -> None:
    commit(folder, f"xen/{SHA}/www.xen", f"xen/{SHA}/config.ml", pointers={"xen/latest": SHA})
    prune(folder, f"xen/{SHA}/www.xen")
    commit(folder)
    run("git", "clone", "-q", "--bare", str(folder), "../bare.git", cwd=folder)
    assert names(Repository(folder.parent / "bare.git").tip("main")) == ["www"]


PARTS = st.sampled_from(
    ["xen", "unix", "latest", SHA, "a b", "mir-www.xen.bz2", "www.unix", "x.gz"]
)


def test_any_guest_found_at_a_revision_is_located_by_its_image_path(folder: Path) -> None:
    @settings(max_examples=40, deadline=None)
    @given(st.dictionaries(st.lists(PARTS, min_size=1, max_size=4).map("/".join), PARTS))
    def property_holds(tree: dict[str, str]) -> None:
        for entry in folder.iterdir():
            if entry.name != ".git":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for path, text in tree.items():
            if not any(other.startswith(f"{path}/") for other in tree):
                change(folder, pointers={path: text})
        run("git", "update-ref", "-d", "HEAD", cwd=folder)
        revision = commit(folder)
        for found in find(revision).guests:
            try:
                located = locate(revision, found.image).blob.path
            except Missing:  # it was told by history, for a pointer that leads nowhere
                located = found.where
            assert located == found.where

    property_holds()


# What the site of an image is called.


@pytest.mark.parametrize(
    ("place", "called"),
    [
        ("/srv/mort.io-deployment", "mort.io"),
        ("/srv/mort.io.git/", "mort.io"),
        ("git@example.org:sites/deploy-mort.io.git", "mort.io"),
        ("https://example.org/mort.io", "mort.io"),
        ("https://mort.io/deployment", "mortio"),
        ("/srv/mort.io.example", "mortio"),
        ("/srv/www.mort.io", "mortio"),
        ("/srv/mort..io", "mortio"),
        ("/srv/mort.ion", "mortio"),
        ("/srv/mortio", "mortio"),
        ("/srv/deployment", "mortio"),
    ],
)
def test_a_site_has_the_dots_that_the_repositorys_name_has(place: str, called: str) -> None:
    assert site("mortio", ["/srv/clone", place]) == called


# Disk images beside an image.


def test_disk_images_beside_an_image_are_called_with_and_without_their_ending(folder: Path) -> None:
    files = ("www.xen.bz2", "fat1.img.bz2", "config.ml")
    revision = commit(
        folder, *(f"xen/{SHA}/{file}" for file in files), pointers={"xen/latest": SHA}
    )
    path = "xen/{latest}/fat1.img.bz2"
    assert disks(revision, "xen/{latest}/www.xen.bz2") == {"fat1": path, "fat1.img": path}


def test_disk_images_lie_at_the_root_where_the_image_does(folder: Path) -> None:
    revision = commit(folder, "www.xen", "fat1.img")
    assert disks(revision, "www.xen") == {"fat1": "fat1.img", "fat1.img": "fat1.img"}
