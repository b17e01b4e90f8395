"""`mirage-hooks verify`: what it says of a commit or a range, and what it ends with."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from support import COMMAND, USER, run

SCRIPT = b"#!/bin/sh\nexec sleep 1000\n"
BROKEN = b"plain text"
GUEST = b'[guest.www]\ntarget = "unix"\nimage = "www.unix"\n'

SOUND, CONFIG, REPOSITORY, IMAGE = 0, 3, 4, 5


def verify(folder: Path, *arguments: str, cwd: Path | None = None) -> CompletedProcess[str]:
    """Run the command in a repository, whatever comes of it."""
    return run(COMMAND, "-C", folder, "verify", *arguments, cwd=cwd or folder, check=False)


def commit(folder: Path, image: bytes | None, manifest: bytes = GUEST) -> str:
    """Commit a manifest, and the image it names; return the commit."""
    (folder / "mirage-hooks.toml").write_bytes(manifest)
    if image is not None:
        (folder / "www.unix").write_bytes(image)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "change", cwd=folder)
    return run("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()


@pytest.fixture
def sound(folder: Path) -> Path:
    """A clone without an installation, whose last image is sound and whose first was not."""
    commit(folder, BROKEN)
    commit(folder, SCRIPT)
    return folder


# Which revisions.


def test_without_an_argument_it_is_what_is_checked_out(sound: Path) -> None:
    done = verify(sound)
    head = run("git", "rev-parse", "--short=7", "HEAD", cwd=sound).stdout.strip()
    assert done.stdout.startswith(f"{head}: www: image www.unix is sound: ")
    assert (done.returncode, done.stderr) == (SOUND, "")


@pytest.mark.parametrize("name", ["HEAD~1", "main^", "first"])
def test_a_revision_is_named_as_git_has_it(sound: Path, name: str) -> None:
    run("git", "tag", "-a", "-m", "first", "first", "HEAD~1", cwd=sound)
    assert verify(sound, name).returncode == IMAGE


def test_of_a_range_every_commit_counts(sound: Path) -> None:
    first = run("git", "rev-parse", "HEAD~1", cwd=sound).stdout.strip()
    third = commit(sound, BROKEN + b" once more")
    done = verify(sound, f"{first}..{third}")
    assert done.returncode == IMAGE
    assert [len(text.splitlines()) for text in (done.stdout, done.stderr)] == [1, 1]


def test_a_range_without_an_end_ends_with_what_is_checked_out(sound: Path) -> None:
    assert verify(sound, "HEAD~1..").returncode == SOUND


def test_a_range_in_which_there_is_nothing_is_said_to_be_empty(sound: Path) -> None:
    done = verify(sound, "HEAD..HEAD")
    assert (done.returncode, done.stdout) == (SOUND, "no commit is in HEAD..HEAD\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "has no commit 'nothing'"),
        ("HEAD:www.unix", "has no commit 'HEAD:www.unix'"),
        ("--all", "has no commit '--all'"),
        ("nothing..HEAD", "git knows no commits 'nothing..HEAD'"),
        ("--all..HEAD", "git knows no commits '--all..HEAD'"),
        ("--output=x..HEAD", "git knows no commits '--output=x..HEAD'"),
    ],
)
def test_what_is_no_revision_is_refused_by_its_name(sound: Path, name: str, words: str) -> None:
    done = verify(sound, "--", name)
    assert (done.returncode, words in done.stderr) == (REPOSITORY, True)
    assert sorted(path.name for path in sound.iterdir()) == [
        ".git",
        "mirage-hooks.toml",
        "www.unix",
    ]


def test_what_looks_like_an_option_is_refused_as_one(sound: Path) -> None:
    assert verify(sound, "--all").returncode == 2


def test_a_file_called_like_a_branch_is_not_in_the_way(sound: Path) -> None:
    (sound / "main").touch()
    (sound / "HEAD~1..main").touch()
    assert [verify(sound, name).returncode for name in ("main", "HEAD~1..main")] == [SOUND, SOUND]


# What it says, and ends with.


@pytest.mark.parametrize(
    ("image", "manifest", "code", "words"),
    [
        (SCRIPT, b"[guest.www\n", CONFIG, "mirage-hooks.toml is no valid TOML: "),
        (SCRIPT, GUEST.replace(b"unix", b"hvt", 1), CONFIG, "www: image www.unix is for target"),
        (b"", GUEST, REPOSITORY, "www: image www.unix is empty"),
        (BROKEN, GUEST, IMAGE, "www: image www.unix: it is neither an ELF file nor a script"),
    ],
    ids=["manifest", "target", "empty", "image"],
)
def test_what_is_broken_is_said_on_standard_error(
    folder: Path, image: bytes, manifest: bytes, code: int, words: str
) -> None:
    head = commit(folder, image, manifest)
    done = verify(folder)
    assert done.stderr.startswith(f"{head[:7]}: {words}")
    assert (done.returncode, done.stdout) == (code, "")


def test_an_image_that_is_not_there_is_said_and_no_failure(folder: Path) -> None:
    head = commit(folder, None)
    done = verify(folder)
    assert (done.returncode, done.stdout, done.stderr) == (
        SOUND,
        f"{head[:7]}: www: there is no image www.unix\n",
        "",
    )


def test_a_commit_in_which_nobody_describes_a_guest_is_said_to_be_one(folder: Path) -> None:
    run("git", "commit", "-q", "--allow-empty", "-m", "empty", cwd=folder)
    done = verify(folder)
    assert (done.returncode, done.stdout) == (SOUND, "no guest is described\n")


def test_programs_are_told_in_json(sound: Path) -> None:
    commits = run("git", "rev-list", "HEAD", cwd=sound).stdout.split()
    third = commit(sound, BROKEN + b" once more")
    done = verify(sound, "--json", f"{commits[1]}..")
    facts = json.loads(done.stdout)
    assert [{**fact, "message": fact["message"].split(":")[0]} for fact in facts] == [
        {
            "revision": commits[0],
            "guest": "www",
            "deployable": True,
            "message": "image www.unix is sound",
        },
        {"revision": third, "guest": "www", "deployable": False, "message": "image www.unix"},
    ]
    assert (done.returncode, done.stderr) == (IMAGE, "")


def test_nothing_found_is_an_empty_list_to_programs(folder: Path) -> None:
    run("git", "commit", "-q", "--allow-empty", "-m", "empty", cwd=folder)
    assert json.loads(verify(folder, "--json").stdout) == []


# Where.


def test_outside_of_a_repository_there_is_nothing_to_verify(tmp_path: Path) -> None:
    done = verify(tmp_path)
    assert (done.returncode, "is not in a git repository" in done.stderr) == (REPOSITORY, True)


def test_a_repository_without_a_commit_has_nothing_to_verify(folder: Path) -> None:
    done = verify(folder)
    assert (done.returncode, "has no commit 'HEAD'" in done.stderr) == (REPOSITORY, True)


def test_a_bare_repository_is_verified(sound: Path, tmp_path: Path) -> None:
    run("git", "clone", "-q", "--bare", sound, "bare.git", cwd=tmp_path)
    bare = tmp_path / "bare.git"
    assert [verify(bare, name).returncode for name in ("main", "main~1")] == [SOUND, IMAGE]


def test_a_folder_below_is_as_good_as_the_repository(sound: Path) -> None:
    (sound / "below").mkdir()
    assert verify(sound / "below").returncode == SOUND


def test_nothing_is_left_in_a_clone_without_an_installation(sound: Path) -> None:
    before = sorted(path for path in sound.rglob("*"))
    verify(sound, "HEAD~1..")
    assert sorted(path for path in sound.rglob("*")) == before


def test_in_an_installation_the_limit_of_the_host_holds(sound: Path) -> None:
    commit(sound, SCRIPT.ljust((1 << 20) + 1, b"#"))
    run(COMMAND, "install", *(["--user", USER] if USER else []), cwd=sound)
    host_file = sound / ".git" / "mirage-hooks" / "host.toml"
    host_file.write_text(host_file.read_text().replace("[limits]", "[limits]\nimage = 1"))
    done = verify(sound)
    assert (done.returncode, "unpacks to more than 1 MiB" in done.stderr) == (IMAGE, True)


def test_a_hook_of_gits_may_call_it_for_another_repository(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("git", "init", "-q", "--bare", "other.git", cwd=tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other.git"))
    assert verify(sound, cwd=tmp_path).returncode == SOUND
