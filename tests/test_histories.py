"""A history such as CI and people really make, pulled commit by commit.

The generator writes commits of every kind that existing deployment repositories show; a model,
which shares nothing with the product, says after which of them a guest is to be booted.
"""

import bz2
import gzip
import hashlib
import json
import lzma
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random

import pytest

from mirage_hooks.boot.history import ever
from support import Site, free_port, get, run

SEED = 3
IMAGES = {"www": "mir-www.unix.bz2", "blog": "blog.unix.gz"}
PAGES = [f"page {number}" for number in range(8)]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "bzip2": bz2.compress,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "xz": lambda data: lzma.compress(data, preset=0),
    "none": bytes,
}
USUAL = {"www": "bzip2", "blog": "gzip"}
BOTH = tuple(IMAGES)

# What a commit is called in the table, after each change it makes to the repository.
Steps = Iterator[str]


@dataclass(frozen=True)
class File:
    """A file of the deployment repository; `page` is what an image serves."""

    data: bytes
    mode: str = "100644"
    page: str | None = None


@dataclass(frozen=True)
class Commit:
    """A commit, and at which level guests are to log by the time it is pulled: host.toml says that.

    `side` is the tree of a branch that it merges, begun one commit earlier.
    """

    kind: str
    files: dict[str, File]
    levels: dict[str, str]
    side: dict[str, File] | None = None

    def path(self, guest: str) -> str:
        """Return where the pointer says that a guest's image is."""
        pointer = self.files["unix/latest"].data.decode().strip()
        return f"unix/{pointer}/{IMAGES[guest]}"

    def page(self, guest: str) -> str | None:
        """Return what a guest's image serves, None where it is not there."""
        image = self.files.get(self.path(guest))
        return image.page if image is not None else None


@dataclass
class Ci:
    """The CI jobs and the people that commit, at work on one tree."""

    random: Random
    pack: Callable[[str, str], bytes]
    files: dict[str, File] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=lambda: dict.fromkeys(IMAGES, "info"))
    side: dict[str, File] | None = None

    @property
    def pointed(self) -> str:
        """The folder that the pointer names."""
        return self.files["unix/latest"].data.decode().strip()

    def page(self, guest: str) -> str:
        """Return what the image pointed at serves."""
        page = self.files[f"unix/{self.pointed}/{IMAGES[guest]}"].page
        assert page is not None
        return page

    def another(self, guest: str) -> str:
        """Return some other page."""
        return self.random.choice([page for page in PAGES if page != self.page(guest)])

    def write(self, path: str, text: str, mode: str = "100644") -> None:
        self.files[path] = File(text.encode(), mode)

    def folder(self) -> str:
        """Return a new source commit, with what every build of it leaves beside the images."""
        sha = f"{self.random.getrandbits(160):040x}"
        self.write(f"unix/{sha}/config.ml", f"(* {sha} *)\n")
        return sha

    def image(self, sha: str, guest: str, page: str, packer: str | None = None) -> None:
        data = self.pack(page, packer or USUAL[guest])
        self.files[f"unix/{sha}/{IMAGES[guest]}"] = File(data, "100755", page)

    def point(self, sha: str) -> None:
        self.write("unix/latest", f"{sha}\n")

    def images(self) -> dict[str, File]:
        """Return every image of the tree."""
        return {path: file for path, file in self.files.items() if file.page is not None}

    def prune(self, *paths: str) -> None:
        """Take files out of the tree."""
        for path in paths:
            del self.files[path]


# What happens in deployment repositories: each function is one story, each step of it a commit.


def release(ci: Ci) -> Steps:
    sha = ci.folder()
    for guest in BOTH:
        ci.image(sha, guest, ci.another(guest))
    ci.point(sha)
    yield "release of both"


def release_of_one(ci: Ci) -> Steps:
    changed, sha = ci.random.choice(BOTH), ci.folder()
    for guest in BOTH:
        ci.image(sha, guest, ci.another(guest) if guest == changed else ci.page(guest))
    ci.point(sha)
    yield "release of one"


def rebuild_of_the_same(ci: Ci) -> Steps:
    sha = ci.folder()
    for guest in BOTH:
        ci.image(sha, guest, ci.page(guest))
    ci.point(sha)
    yield "new folder, same bytes"


def image_before_pointer(ci: Ci) -> Steps:
    sha = ci.folder()
    for guest in BOTH:
        ci.image(sha, guest, ci.another(guest))
    yield "image only"
    ci.point(sha)
    yield "pointer only"


def pointer_before_image(ci: Ci) -> Steps:
    pages = {guest: ci.another(guest) for guest in BOTH}
    sha = ci.folder()
    ci.point(sha)
    yield "pointer before image"
    yield from scripts(ci)
    for guest, page in pages.items():
        ci.image(sha, guest, page)
    yield "image after pointer"


def two_jobs(ci: Ci) -> Steps:
    pages = {guest: ci.another(guest) for guest in BOTH}
    first, second = ci.random.sample(BOTH, 2)
    sha = ci.folder()
    ci.image(sha, first, pages[first])
    ci.point(sha)
    yield "first image of two jobs"
    yield from scripts(ci)
    ci.image(sha, second, pages[second])
    yield "second image of two jobs"


def back_and_forth(ci: Ci) -> Steps:
    before, sha = ci.pointed, ci.folder()
    for guest in BOTH:
        ci.image(sha, guest, ci.another(guest))
    ci.point(sha)
    yield "release of both"
    ci.point(before)
    yield "pointer back"


def rebuild_under_the_same_name(ci: Ci) -> Steps:
    guest = ci.random.choice(BOTH)
    ci.image(ci.pointed, guest, ci.another(guest))
    yield "rebuilt under the same sha"


def recompress(ci: Ci) -> Steps:
    guest = ci.random.choice(BOTH)
    packer = ci.random.choice([packer for packer in PACKERS if packer != USUAL[guest]])
    ci.image(ci.pointed, guest, ci.page(guest), packer)
    yield "recompressed"


def recompress_in_a_new_folder(ci: Ci) -> Steps:
    sha = ci.folder()
    for guest in BOTH:
        ci.image(sha, guest, ci.page(guest), "xz")
    ci.point(sha)
    yield "new folder, recompressed"


def change_mode(ci: Ci) -> Steps:
    path = f"unix/{ci.pointed}/{IMAGES[ci.random.choice(BOTH)]}"
    old = ci.files[path]
    ci.files[path] = replace(old, mode="100644" if old.mode == "100755" else "100755")
    yield "mode only"


def scripts(ci: Ci) -> Steps:
    path = ci.random.choice(["scripts/boot.sh", "README.md", "xl.conf.in", "Makefile"])
    ci.write(path, f"# {ci.random.random()}\n", "100755" if path.endswith(".sh") else "100644")
    yield "scripts only"


def siblings(ci: Ci) -> Steps:
    for file in ("config.ml", "packages", "www.map", "www.xl.in", "fat1.img.bz2"):
        ci.write(f"unix/{ci.pointed}/{file}", f"{ci.random.random()}\n")
    yield "siblings only"


def prune_old(ci: Ci) -> Steps:
    ci.prune(*(path for path in ci.images() if ci.pointed not in path))
    yield "pruned"


def prune_all(ci: Ci) -> Steps:
    pruned = ci.images()
    ci.prune(*pruned)
    yield "pruned, the one pointed at too"
    yield from scripts(ci)
    ci.files |= {path: file for path, file in pruned.items() if ci.pointed in path}
    yield "put back"


def merge_of_a_build(ci: Ci) -> Steps:
    before = dict(ci.files)
    yield from scripts(ci)
    guest, sha = ci.random.choice(BOTH), ci.folder()
    for other in BOTH:
        ci.image(sha, other, ci.another(other) if other == guest else ci.page(other))
    ci.point(sha)
    built = {path: file for path, file in ci.files.items() if sha in path or path == "unix/latest"}
    ci.side = before | built
    yield "merge of a build"


def merge_of_scripts(ci: Ci) -> Steps:
    before = dict(ci.files)
    yield from siblings(ci)
    ci.write("scripts/poll.sh", f"# {ci.random.random()}\n", "100755")
    ci.side = before | {"scripts/poll.sh": ci.files["scripts/poll.sh"]}
    yield "merge of scripts"


def other_arguments(ci: Ci) -> Steps:
    guest = ci.random.choice(BOTH)
    ci.levels[guest] = {"info": "debug", "debug": "info"}[ci.levels[guest]]
    ci.write("README.md", f"{ci.random.random()}\n")
    yield "scripts, after new arguments on the host"


STORIES: dict[Callable[[Ci], Steps], int] = {
    release: 1,
    release_of_one: 2,
    rebuild_of_the_same: 3,
    image_before_pointer: 2,
    pointer_before_image: 2,
    two_jobs: 3,
    back_and_forth: 1,
    rebuild_under_the_same_name: 3,
    recompress: 5,
    recompress_in_a_new_folder: 2,
    change_mode: 6,
    scripts: 21,
    siblings: 13,
    prune_old: 6,
    prune_all: 2,
    merge_of_a_build: 2,
    merge_of_scripts: 4,
    other_arguments: 2,
}


def generate(seed: int, pack: Callable[[str, str], bytes]) -> list[Commit]:
    """Return a history, the same for a seed; `pack` returns the image of a page, compressed."""
    random = Random(seed)
    ci = Ci(random, pack)
    sha = ci.folder()
    for guest in BOTH:
        ci.image(sha, guest, PAGES[0])
    ci.point(sha)
    commits = [Commit("the first", dict(ci.files), dict(ci.levels))]
    stories = [story for story, times in STORIES.items() for _ in range(times)]
    random.shuffle(stories)
    for story in stories:
        for kind in story(ci):
            commits.append(Commit(kind, dict(ci.files), dict(ci.levels), ci.side))
            ci.side = None
    return commits


# Into git.


def import_commits(repository: Path, commits: list[Commit]) -> list[str]:
    """Write commits into a bare repository, on no branch; return their ids."""
    stream = bytearray()
    for number, commit in enumerate(commits, 1):
        parents = [f"from :{number - 1}"] if number > 1 else []
        if commit.side is not None:
            side = 10_000 + number
            stream += _as_stream(side, "side", [f"from :{number - 2}"], commit.side)
            parents.append(f"merge :{side}")
        stream += _as_stream(number, commit.kind, parents, commit.files)
    marks = repository / "marks"
    command = ["git", "fast-import", "--quiet", f"--export-marks={marks}"]
    subprocess.run(command, cwd=repository, input=stream, check=True)
    ids = dict(line.split() for line in marks.read_text().splitlines())
    return [ids[f":{number}"] for number in range(1, len(commits) + 1)]


def _as_stream(mark: int, message: str, parents: list[str], files: dict[str, File]) -> bytes:
    head = [
        "commit refs/generated/history",
        f"mark :{mark}",
        f"committer CI <ci@example.org> {1_700_000_000 + mark} +0000",
        f"data {len(message)}\n{message}",
        *parents,
        "deleteall",
    ]
    stream = "\n".join(head).encode() + b"\n"
    for path, file in files.items():
        stream += f"M {file.mode} inline {path}\ndata {len(file.data)}\n".encode()
        stream += file.data + b"\n"
    return stream + b"\n"


# What should happen.

Booted = tuple[str, tuple[str, ...]]


@dataclass
class Model:
    """The image and the arguments of each boot that a history should have led to so far."""

    sha256: Callable[[str], str]
    boots: dict[str, list[Booted]] = field(default_factory=lambda: {guest: [] for guest in IMAGES})
    pages: dict[str, str] = field(default_factory=dict)

    def take(self, commit: Commit, arguments: dict[str, tuple[str, ...]]) -> None:
        """Reckon with a commit that is pulled."""
        for guest, boots in self.boots.items():
            page = commit.page(guest)
            if page is None:
                continue
            wanted = (self.sha256(page), arguments[guest])
            if not boots or boots[-1] != wanted:
                boots.append(wanted)
                self.pages[guest] = page


def newly_missing(before: Commit, commit: Commit) -> list[str]:
    """Return the images that a commit asks for and does not have, where the last one did not."""
    missing = [commit.path(guest) for guest in IMAGES if commit.page(guest) is None]
    known = [before.path(guest) for guest in IMAGES if before.page(guest) is None]
    return [path for path in missing if path not in known]


# On the host.


@dataclass
class Host:
    """A clone that is brought forward one commit at a time."""

    site: Site
    ids: list[str]
    ports: dict[str, int]
    installed: str

    def describe(self, levels: dict[str, str]) -> dict[str, tuple[str, ...]]:
        """Write the guests' arguments into the host file; return them."""
        text = self.installed
        arguments: dict[str, tuple[str, ...]] = {}
        for guest, port in self.ports.items():
            level = f"--logs=*:{levels[guest]}"
            arguments[guest] = ("--ipv4=127.0.0.1/8", f"--port={port}", level)
            head = f"[guest.{guest}]\n"
            assert head in text
            text = text.replace(head, f"{head}args = {json.dumps(arguments[guest])}\n")
            check = f'http = "http://127.0.0.1:{port}/"\ninterval = "20ms"\n'
            text += f"\n[guest.{guest}.check]\n{check}"
        self.site.state.host_file.write_text(text)
        return arguments

    def pull(self, number: int) -> str:
        """Move the upstream's branch to a commit, and pull; return what was said."""
        run("git", "update-ref", "refs/heads/main", self.ids[number], cwd=self.site.upstream)
        return self.site.pull("--ff-only").stderr

    def boots(self, guest: str) -> list[Booted]:
        """Return image and arguments of each generation of a guest."""
        generations = [past.generation for past in ever(self.site.state, guest)]
        return [(one.boot.image, one.boot.arguments) for one in generations]

    def pages(self) -> dict[str, str | None]:
        """Return what each guest serves."""
        return {guest: get(port) for guest, port in self.ports.items()}


@pytest.fixture(scope="session")
def pack(compiled: Callable[[str], Path]) -> Callable[[str, str], bytes]:
    """Return a function that returns the image of a page, compressed."""
    return cache(lambda page, packer: PACKERS[packer](compiled(page).read_bytes()))


@pytest.fixture(scope="session")
def history(pack: Callable[[str, str], bytes]) -> list[Commit]:
    return generate(SEED, pack)


@pytest.fixture
def model(compiled: Callable[[str], Path]) -> Model:
    return Model(cache(lambda page: hashlib.sha256(compiled(page).read_bytes()).hexdigest()))


@pytest.fixture
def host(tmp_path: Path, site: Site, history: list[Commit]) -> Host:
    """A clone of a generated repository at its first commit; its guests are named at install."""
    site.upstream, site.clone = tmp_path / "generated.git", tmp_path / "host"
    run("git", "init", "-q", "--bare", str(site.upstream), cwd=tmp_path)
    ids = import_commits(site.upstream, history)
    run("git", "update-ref", "refs/heads/main", ids[0], cwd=site.upstream)
    run("git", "clone", "-q", str(site.upstream), str(site.clone), cwd=tmp_path)
    guests = []
    for guest, file in IMAGES.items():
        guests += ["--guest", guest, "--target", "unix", "--image", f"unix/{{latest}}/{file}"]
    site.install(*guests)
    ports = {guest: free_port() for guest in IMAGES}
    return Host(site, ids, ports, site.state.host_file.read_text())


def table(commits: Counter[str], expected: Counter[str], seen: Counter[str]) -> str:
    """Return, a line a kind of commit, how many there were and what they booted."""
    lines = [f"{'kind of commit':40}  commits  boots expected  boots seen"]
    for kind in sorted(commits):
        lines.append(f"{kind:40}  {commits[kind]:7}  {expected[kind]:14}  {seen[kind]:10}")
    sums = (commits.total(), expected.total(), seen.total())
    lines.append("{:40}  {:7}  {:14}  {:10}".format("all", *sums))
    return "\n".join(lines)


@pytest.mark.timeout(300)
def test_every_commit_boots_what_it_changed_and_nothing_else(
    host: Host, history: list[Commit], model: Model
) -> None:
    commits, expected, seen = Counter[str](), Counter[str](), Counter[str]()
    wrong: list[str] = []
    host.describe(history[0].levels)
    host.site.command("deploy")
    before = history[0]
    for number, commit in enumerate(history):
        arguments = host.describe(commit.levels)
        said = host.pull(number)
        old = {guest: len(boots) for guest, boots in model.boots.items()}
        model.take(commit, arguments)
        commits[commit.kind] += 1
        for guest, boots in model.boots.items():
            found = host.boots(guest)
            expected[commit.kind] += len(boots) - old[guest]
            seen[commit.kind] += len(found) - old[guest]
            if found != boots:
                new, due = found[old[guest] :], boots[old[guest] :]
                wrong.append(f"{number} {commit.kind}: {guest} booted {new}, not {due}")
                boots[:] = found
        for path in newly_missing(before, commit):
            if f"there is no image {path} yet" not in said:
                wrong.append(f"{number} {commit.kind}: nothing is said of {path}: {said}")
        if (pages := host.pages()) != model.pages:
            wrong.append(f"{number} {commit.kind}: {pages} instead of {model.pages}")
        before = commit
    print(f"\n{table(commits, expected, seen)}")
    assert wrong == []


def test_a_generated_history_is_the_same_for_a_seed() -> None:
    one, two = (generate(SEED, lambda page, packer: f"{page} {packer}".encode()) for _ in "ab")
    assert one == two


def test_a_generated_history_is_long_enough_and_boots_enough(
    history: list[Commit], model: Model
) -> None:
    for commit in history:
        model.take(commit, {guest: (commit.levels[guest],) for guest in IMAGES})
    assert len(history) >= 100
    assert 20 <= sum(map(len, model.boots.values())) <= 35


def test_a_generated_history_is_one_that_git_finds_sound(
    tmp_path: Path, history: list[Commit]
) -> None:
    run("git", "init", "-q", "--bare", "generated.git", cwd=tmp_path)
    repository = tmp_path / "generated.git"
    import_commits(repository, history)
    run("git", "fsck", "--strict", cwd=repository)
    merges = run("git", "rev-list", "--merges", "refs/generated/history", cwd=repository).stdout
    assert len(merges.split()) == sum(commit.side is not None for commit in history)
