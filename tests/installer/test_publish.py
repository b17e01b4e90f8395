"""`mirage-hooks publish`: what CI brings to a deployment repository, and what it is refused."""

import bz2
import os
from pathlib import Path

import pytest

from mirage_hooks.boot import artifact, convention, description
from mirage_hooks.boot.convention import ENDINGS
from mirage_hooks.boot.repository import Repository
from publisher import DESCRIBED, FIRST, SCRIPT, SECOND, THIRD, Publisher, make_publisher, other
from support import COMMAND, PACKERS, USER, run

CONFIG, REPOSITORY, IMAGE = 3, 4, 5


def located(job: Publisher, template: str) -> bytes:
    """Return what an image path leads to at the branch's tip."""
    blob = artifact.locate(job.tip, template).blob
    with blob.open() as stream:
        return stream.read()


# What is written.


def test_image_checksum_and_pointer_come_in_one_commit(job: Publisher) -> None:
    done = job.publish()
    assert (done.returncode, job.count()) == (0, 1)
    folder = f"unix/{FIRST}"
    assert job.paths() == [f"{folder}/www.unix.bz2", f"{folder}/www.unix.bz2.sha256", "unix/latest"]
    assert job.text("unix/latest") == f"{FIRST}\n"
    assert bz2.decompress(located(job, "unix/{latest}/www.unix.bz2")) == SCRIPT


def test_it_is_said_what_is_where(job: Publisher) -> None:
    done = job.publish()
    tip = job.tip.id[:7]
    assert done.stdout.startswith(f"www: unix/{FIRST}/www.unix.bz2 ")
    assert done.stdout.endswith(f" is published: main is at {tip}\n")
    assert done.stderr == ""


def test_the_checksum_is_the_images(job: Publisher, tmp_path: Path) -> None:
    job.publish()
    run("git", "clone", "-q", job.upstream, "again", cwd=tmp_path)
    run("sha256sum", "-c", "www.unix.bz2.sha256", cwd=tmp_path / "again" / "unix" / FIRST)


def test_the_commit_says_where_the_image_comes_from(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("CI_COMMIT_SHA", SECOND)
    monkeypatch.setenv("CI_COMMIT_BRANCH", "main")
    monkeypatch.setenv("CI_PROJECT_URL", "https://gitlab.com/me/site")
    monkeypatch.setenv("CI_JOB_URL", "https://gitlab.com/me/site/-/jobs/9")
    job.publish(commit="")
    log = run("git", "log", "-1", "--format=%(trailers)", "main", cwd=job.upstream).stdout
    facts = dict(line.split(": ", 1) for line in log.splitlines() if line)
    assert facts.pop("Image-Digest").startswith("sha256:")
    assert facts == {
        "Guest": "www",
        "Target": "unix",
        "Image": f"unix/{SECOND}/www.unix.bz2",
        "Source-Repository": "https://gitlab.com/me/site",
        "Source-Commit": SECOND,
        "CI-Run": "https://gitlab.com/me/site/-/jobs/9",
    }


def test_siblings_lie_beside_the_image(job: Publisher) -> None:
    config = job.folder / "config.ml"
    config.write_text("open Mirage\n")
    job.publish("--with", config)
    assert job.text(f"unix/{FIRST}/config.ml") == "open Mirage\n"


@pytest.mark.parametrize("compression", ENDINGS)
def test_the_image_is_packed_as_it_is_asked_for(job: Publisher, compression: str) -> None:
    job.publish("--compression", compression)
    path = f"unix/{{latest}}/www.unix.{ENDINGS[compression]}"
    assert located(job, path) != SCRIPT
    assert [one.image for one in convention.find(job.tip).guests] == [path]


@pytest.mark.parametrize("compression", PACKERS)
def test_an_image_may_come_packed_already(job: Publisher, compression: str) -> None:
    job.publish(content=PACKERS[compression](SCRIPT))
    assert bz2.decompress(located(job, "unix/{latest}/www.unix.bz2")) == SCRIPT


def test_the_path_is_the_one_that_the_manifest_has(job: Publisher) -> None:
    job.bring({"mirage-hooks.toml": DESCRIBED.replace("www.unix", "site-{latest}.xz")})
    job.publish()
    assert located(job, f"unix/{FIRST}/site-{FIRST}.xz")[:6] == b"\xfd7zXZ\x00"


def test_the_path_is_the_one_that_the_repository_had_so_far(job: Publisher) -> None:
    job.bring({f"xen/{FIRST}/mir-old.xen.gz": "x", "xen/latest": FIRST})
    job.bring({f"unix/{FIRST}/mir-www.unix.gz": "x", "unix/latest": FIRST})
    job.publish(commit=SECOND)
    assert located(job, f"unix/{SECOND}/mir-www.unix.gz")[:2] == b"\x1f\x8b"


def test_a_site_goes_where_its_name_is_without_dots(job: Publisher) -> None:
    job.bring({f"unix/{SECOND}/mortio.unix.gz": "x", "unix/latest": SECOND})
    job.publish(guest="mort.io")
    assert f"unix/{FIRST}/mortio.unix.gz" in job.paths()
    assert not any("mort.io" in path for path in job.paths())


@pytest.mark.parametrize("guest", ["www", "mir-www", "www.hvt", "a.b-c_d", "mir-mir-"])
def test_convention_knows_the_guest_that_was_published(job: Publisher, guest: str) -> None:
    job.publish(guest=guest)
    assert [one.name for one in convention.find(job.tip).guests] == [guest]


def test_the_manifests_guests_are_those_that_were_published(job: Publisher) -> None:
    job.bring({"mirage-hooks.toml": DESCRIBED})
    job.publish()
    guests = description.describe(job.tip, {})
    assert guests is not None
    assert bz2.decompress(located(job, guests[0].image)) == SCRIPT


# In whichever clone.


def test_what_the_work_tree_holds_does_not_matter(job: Publisher) -> None:
    job.publish()
    job.git("pull", "-q", "origin", "main")
    (job.clone / "unix" / "latest").write_text("dirty\n")
    (job.clone / "staged").write_text("staged\n")
    job.git("add", "staged")
    before = job.git("status", "--porcelain")
    job.publish(content=other(1), commit=SECOND)
    assert job.git("status", "--porcelain") == before
    assert "staged" not in job.paths()
    assert job.text("unix/latest") == f"{SECOND}\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--depth=1",),
        ("--single-branch",),
        ("--bare",),
        ("--no-checkout",),
        ("--sparse",),
        ("--filter=blob:none", "--sparse"),
        ("--filter=tree:0", "--no-checkout"),
    ],
    ids=" ".join,
)
def test_any_kind_of_clone_does(job: Publisher, options: tuple[str, ...]) -> None:
    run("git", "config", "uploadpack.allowFilter", "true", cwd=job.upstream)
    for number, commit in enumerate((FIRST, SECOND)):
        job.publish(content=other(number), commit=commit, guest="api")
    clone = make_publisher(job.folder, "clone", *options)
    job.bring({"note": "moved meanwhile"})
    clone.publish(commit=THIRD)
    assert job.count() == 4
    assert [one.name for one in convention.find(job.tip).guests] == ["api", "www"]


def test_a_clone_with_a_detached_head_takes_the_branch_by_name(job: Publisher) -> None:
    job.publish()
    job.git("fetch", "-q")
    job.git("checkout", "-q", "--detach", "origin/main")
    refused = job.publish(content=other(1), commit=SECOND, check=False)
    assert (refused.returncode, "--branch" in refused.stderr) == (REPOSITORY, True)
    job.publish("--branch", "main", content=other(1), commit=SECOND)
    assert job.count() == 2


def test_a_host_installs_what_was_published(job: Publisher, tmp_path: Path) -> None:
    job.publish()
    host = tmp_path / "host"
    run("git", "clone", "-q", job.upstream, host, cwd=tmp_path)
    run(COMMAND, "install", *(["--user", USER] if USER else []), cwd=host)
    job.publish(content=other(1), commit=SECOND)
    run("git", "-c", "core.hooksPath=/nonexistent", "pull", "-q", cwd=host)
    planned = run(COMMAND, "plan", cwd=host).stdout
    assert "www" in planned
    assert "first boot of image unix/…/www.unix.bz2" in planned
    found = artifact.locate(Repository(host).tip("main"), "unix/{latest}/www.unix.bz2")
    assert found.blob.path == f"unix/{SECOND}/www.unix.bz2"


def test_our_own_pre_push_hook_has_its_say(job: Publisher) -> None:
    job.publish()
    job.git("pull", "-q", "origin", "main")
    run(COMMAND, "install", *(["--user", USER] if USER else []), cwd=job.clone)
    job.publish(content=other(1), commit=SECOND)
    assert job.count() == 2


# Once more.


def test_the_same_image_is_no_commit(job: Publisher) -> None:
    first = job.publish()
    again = job.publish()
    assert (job.count(), again.returncode) == (1, 0)
    assert "main has this image already" in again.stdout
    assert first.stdout != again.stdout


def test_nor_is_it_for_another_source_commit(job: Publisher) -> None:
    job.publish()
    job.publish(commit=SECOND)
    assert (job.count(), job.text("unix/latest")) == (1, f"{FIRST}\n")


def test_nor_where_something_else_packed_it(job: Publisher) -> None:
    packed = bz2.compress(SCRIPT, 1)
    job.bring({f"unix/{SECOND}/www.unix.bz2": packed, "unix/latest": SECOND})
    job.publish()
    assert (job.count(), job.text("unix/latest")) == (1, SECOND)


def test_a_rebuild_of_one_commit_takes_its_place(job: Publisher) -> None:
    job.publish()
    job.publish(content=other(1))
    assert job.count() == 2
    assert bz2.decompress(located(job, "unix/{latest}/www.unix.bz2")) == other(1)


# Beside others.


def test_guests_that_share_a_pointer_keep_their_images(job: Publisher) -> None:
    job.publish(guest="api", content=other(1))
    job.publish(guest="www", content=other(2), commit=SECOND)
    for name, content in (("api", other(1)), ("www", other(2))):
        assert bz2.decompress(located(job, f"unix/{{latest}}/{name}.unix.bz2")) == content
    assert f"unix/{FIRST}/api.unix.bz2" in job.paths()


def test_what_they_have_is_not_sent_again(job: Publisher) -> None:
    run("git", "config", "receive.unpackLimit", "1", cwd=job.upstream)
    for number, guest in enumerate(("api", "www"), 1):
        job.publish(guest=guest, content=SCRIPT + os.urandom(1 << 18), commit=f"{number:040x}")
    packs = (job.upstream / "objects" / "pack").glob("*.pack")
    assert all(pack.stat().st_size < 3 << 17 for pack in packs)


def test_what_the_manifest_has_behind_the_pointer_goes_along(job: Publisher) -> None:
    table = DESCRIBED + '[guest.api]\ntarget = "unix"\nimage = "unix/{latest}/sub/api"\n'
    job.bring({"mirage-hooks.toml": table, "unix/old/sub/api": "#!/bin/sh\n", "unix/latest": "old"})
    job.publish()
    assert located(job, "unix/{latest}/sub/api") == b"#!/bin/sh\n"


DOMAIN = """
[guest.api]
target = "xen"
image = "unix/{latest}/api.xen"
template = "unix/{latest}/api.xl.in"
[guest.api.block.storage]
image = "unix/{latest}/fat1.img"
"""
BESIDE = {"api.xen": "xen", "api.xl.in": "memory = 64\n", "fat1.img": "FAT"}


def test_disk_images_and_templates_of_the_manifest_go_along(job: Publisher) -> None:
    job.bring({f"unix/old/{name}": text for name, text in BESIDE.items()})
    job.bring({"mirage-hooks.toml": DESCRIBED + DOMAIN, "unix/latest": "old"})
    for number, commit in enumerate((FIRST, SECOND)):
        job.publish(content=other(number), commit=commit)
        for name, text in BESIDE.items():
            assert located(job, f"unix/{{latest}}/{name}") == text.encode()


def test_so_do_those_that_convention_has(job: Publisher) -> None:
    job.bring({f"unix/old/{name}": text for name, text in BESIDE.items()})
    job.bring({"unix/latest": "old"})
    job.publish()
    for name, text in BESIDE.items():
        assert located(job, f"unix/{{latest}}/{name}") == text.encode()


def test_a_template_that_is_still_to_come_keeps_nobody_waiting(job: Publisher) -> None:
    job.bring({"mirage-hooks.toml": DESCRIBED + DOMAIN})
    job.publish()
    assert bz2.decompress(located(job, "unix/{latest}/www.unix")) == SCRIPT


def test_another_guests_disk_image_is_never_overwritten(job: Publisher) -> None:
    job.bring({f"unix/old/{name}": text for name, text in BESIDE.items()})
    job.bring({"mirage-hooks.toml": DESCRIBED + DOMAIN, "unix/latest": "old"})
    (job.folder / "fat1.img").write_text("ours")
    refused = job.publish("--with", job.folder / "fat1.img", check=False)
    assert refused.returncode == REPOSITORY
    assert f"unix/{FIRST}/fat1.img belongs to guest api" in refused.stderr


def test_a_disk_image_that_guests_share_is_the_last_one_that_came(job: Publisher) -> None:
    job.bring({f"unix/old/{name}": text for name, text in BESIDE.items()})
    job.bring({"unix/latest": "old"})
    (job.folder / "fat1.img").write_text("ours")
    job.publish("--with", job.folder / "fat1.img")
    assert located(job, "unix/{latest}/fat1.img") == b"ours"


def test_guests_that_share_an_image_have_the_last_one(job: Publisher) -> None:
    job.bring({"mirage-hooks.toml": DESCRIBED + DESCRIBED.replace("guest.www", "guest.api")})
    for number, commit in enumerate((FIRST, SECOND)):
        job.publish(content=other(number), commit=commit)
    assert bz2.decompress(located(job, "unix/{latest}/www.unix")) == other(1)


def test_a_guest_has_its_images_for_other_targets_behind_a_pointer_at_the_root(
    job: Publisher,
) -> None:
    files = {f"{FIRST}/www.xen.bz2": "xen", f"{FIRST}/www.unix.bz2": "old", "latest": FIRST}
    job.bring(files)
    job.publish(commit=SECOND)
    assert located(job, "{latest}/www.xen.bz2") == b"xen"
    assert bz2.decompress(located(job, "{latest}/www.unix.bz2")) == SCRIPT


def test_a_sibling_takes_no_other_guests_place(job: Publisher) -> None:
    table = DESCRIBED + '[guest.api]\ntarget = "unix"\nimage = "unix/{latest}/api"\n'
    job.bring({"mirage-hooks.toml": table, "unix/old/api": "#!/bin/sh\n", "unix/latest": "old"})
    (job.folder / "api").write_text("x")
    refused = job.publish("--with", job.folder / "api", check=False)
    assert refused.returncode == REPOSITORY
    assert f"unix/{FIRST}/api belongs to guest api" in refused.stderr


def test_another_target_has_another_pointer(job: Publisher) -> None:
    job.bring({f"hvt/{SECOND}/www.hvt.bz2": "x", "hvt/latest": SECOND})
    job.publish()
    assert job.text("hvt/latest") == SECOND
    assert job.text("unix/latest") == f"{FIRST}\n"


def test_an_image_that_is_lost_or_broken_is_no_obstacle(job: Publisher) -> None:
    job.bring({"unix/latest": SECOND, f"unix/{THIRD}/api.unix.bz2": "broken"})
    job.publish()
    assert job.text("unix/latest") == f"{FIRST}\n"


def test_an_image_that_this_clone_cannot_read_is_not_left_behind(job: Publisher) -> None:
    job.publish(guest="api", content=other(1))
    oid = artifact.locate(job.tip, "unix/{latest}/api.unix.bz2").blob.oid
    (job.clone / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    job.publish(commit=SECOND, check=False)
    assert bz2.decompress(located(job, "unix/{latest}/api.unix.bz2")) == other(1)


@pytest.mark.parametrize("image", ["", "broken"])
def test_an_image_that_could_not_serve_is_replaced(job: Publisher, image: str) -> None:
    job.bring({f"unix/{SECOND}/www.unix.bz2": image, "unix/latest": SECOND})
    job.publish()
    assert bz2.decompress(located(job, "unix/{latest}/www.unix.bz2")) == SCRIPT


@pytest.mark.parametrize("path", ["unix", f"unix/{FIRST}", f"unix/{FIRST}/www.unix.bz2/x"])
def test_what_is_in_the_way_is_left_and_named(job: Publisher, path: str) -> None:
    job.bring({path: "x"})
    refused = job.publish(check=False)
    assert (refused.returncode, job.paths()) == (REPOSITORY, [path])
    assert path.removesuffix("/x") in refused.stderr


def test_a_pointer_that_is_a_folder_is_left_and_named(job: Publisher) -> None:
    job.bring({"mirage-hooks.toml": DESCRIBED, "unix/latest/x": "x"})
    refused = job.publish(check=False)
    assert (refused.returncode, "unix/latest is a folder" in refused.stderr) == (REPOSITORY, True)
    assert "unix/latest/x" in job.paths()


def test_another_guests_image_is_never_overwritten(job: Publisher) -> None:
    image = f"unix/{FIRST}/www.unix.bz2"
    table = DESCRIBED.replace("www.unix", "www.unix.bz2")
    table += f'[guest.api]\ntarget = "unix"\nimage = "{image}"\n'
    job.bring({image: "x", "mirage-hooks.toml": table})
    refused = job.publish(check=False)
    assert refused.returncode == REPOSITORY
    assert f"{image} belongs to guest api" in refused.stderr


# Signed.


def test_the_commit_is_signed_where_git_is_set_up_to(job: Publisher) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key", cwd=job.folder)
    for key, value in (
        ("gpg.format", "ssh"),
        ("user.signingKey", str(job.folder / "key.pub")),
        ("commit.gpgSign", "true"),
    ):
        job.git("config", key, value)
    job.publish()
    raw = run("git", "cat-file", "commit", "main", cwd=job.upstream).stdout
    assert "gpgsig -----BEGIN SSH SIGNATURE-----" in raw


@pytest.mark.parametrize("name", ["GIT_TRACE2", "GIT_TRACE_PERFORMANCE", "GIT_TRACE"])
def test_what_git_traces_is_in_nobodys_way(
    job: Publisher, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")
    job.publish()
    assert job.count() == 1


def test_configuration_in_the_environment_counts(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = job.git("remote", "get-url", "origin")
    job.git("remote", "set-url", "origin", "ci:deployment")
    given = {"user.name": "CI", f"url.{url}.insteadOf": "ci:deployment"}
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(given)))
    for number, (key, value) in enumerate(given.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    job.publish()
    assert run("git", "log", "-1", "--format=%an", "main", cwd=job.upstream).stdout == "CI\n"


def test_a_key_that_is_away_is_said(job: Publisher) -> None:
    for key, value in (
        ("gpg.format", "ssh"),
        ("user.signingKey", "/none"),
        ("commit.gpgSign", "1"),
    ):
        job.git("config", key, value)
    refused = job.publish(check=False)
    assert (refused.returncode, job.count()) == (REPOSITORY, 0)
    assert "it is to sign" in refused.stderr


def test_a_job_without_a_name_is_told_how_to_get_one(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.git("config", "user.useConfigOnly", "true")
    (Path(os.environ["HOME"]) / ".gitconfig").write_text("[init]\ndefaultBranch = main\n")
    refused = job.publish(check=False)
    assert (refused.returncode, "GIT_COMMITTER_NAME" in refused.stderr) == (REPOSITORY, True)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "CI")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "ci@example.org")
    job.publish()
    assert job.count() == 1


# What is no image, or not for that.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"plain text", "neither an ELF file nor a script"),
        (b"", "unpacks to nothing"),
        (bz2.compress(SCRIPT)[:-4], "cut short"),
    ],
)
def test_what_is_no_image_is_not_published(job: Publisher, content: bytes, words: str) -> None:
    refused = job.publish(content=content, check=False)
    assert (refused.returncode, words in refused.stderr, job.count()) == (IMAGE, True, 0)


def test_an_image_for_another_target_is_not_published(job: Publisher) -> None:
    refused = job.publish("--target", "hvt", check=False)
    assert (refused.returncode, "for target unix" in refused.stderr) == (CONFIG, True)


def test_nor_is_one_that_its_guest_could_not_be_booted_from(job: Publisher) -> None:
    job.bring({"mirage-hooks.toml": DESCRIBED.replace('"unix"', '"hvt"')})
    refused = job.publish(check=False)
    assert (refused.returncode, "the guest for hvt" in refused.stderr) == (CONFIG, True)


def test_a_packing_that_the_path_belies_is_refused(job: Publisher) -> None:
    job.publish()
    refused = job.publish("--compression", "xz", content=other(1), check=False)
    assert (refused.returncode, "does not end as xz does" in refused.stderr) == (CONFIG, True)


@pytest.mark.parametrize("name", ["api.unix", "www.hvt.bz2", "line\nbreak"])
def test_a_sibling_that_could_be_taken_for_an_image_is_refused(job: Publisher, name: str) -> None:
    (job.folder / name).write_text("x")
    refused = job.publish("--with", job.folder / name, check=False)
    assert (refused.returncode, "cannot lie beside" in refused.stderr) == (CONFIG, True)


def test_siblings_need_a_folder_of_their_own(job: Publisher) -> None:
    job.bring({"mirage-hooks.toml": DESCRIBED.replace("unix/{latest}/", "")})
    (job.folder / "config.ml").write_text("x")
    refused = job.publish("--with", job.folder / "config.ml", check=False)
    assert (refused.returncode, "needs a folder {latest}" in refused.stderr) == (CONFIG, True)


@pytest.mark.parametrize("commit", ["main", "1a2b3c4", "../" + "1a" * 20, "1A" * 20, FIRST + "\n"])
def test_the_source_commit_is_a_whole_id(job: Publisher, commit: str) -> None:
    refused = job.publish(commit=commit, check=False)
    assert (refused.returncode, "is no commit id" in refused.stderr) == (CONFIG, True)


def test_without_ci_the_source_commit_has_to_be_named(job: Publisher) -> None:
    refused = job.publish(commit="", check=False)
    assert (refused.returncode, "--source-commit" in refused.stderr) == (CONFIG, True)


def test_a_pull_request_publishes_nothing_whatever_it_asks(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAVIS", "true")
    monkeypatch.setenv("TRAVIS_PULL_REQUEST", "3")
    monkeypatch.setenv("TRAVIS_BRANCH", "main")
    refused = job.publish(check=False)
    assert (refused.returncode, job.count()) == (CONFIG, 0)
    assert "pull request" in refused.stderr


def test_a_guest_that_the_manifest_does_not_have_is_not_published(job: Publisher) -> None:
    job.bring({"mirage-hooks.toml": DESCRIBED})
    refused = job.publish(guest="wwww", check=False)
    assert (refused.returncode, job.paths()) == (CONFIG, ["mirage-hooks.toml"])
    assert "has no guest 'wwww'" in refused.stderr
    assert "it has www;" in refused.stderr
