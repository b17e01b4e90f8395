"""Which guests a deployment repository without a manifest holds, told by its names alone.

The conventions are those of the repositories that CI has filled since MirageOS 1:

- A pointer, the regular file `latest` in a folder of the root (`xen/latest`) or at the root itself,
  names the folder beside it that holds the newest images.
- An image is called `NAME.TARGET`, after `mir-` or not, compressed or not: `mir-www.xen.bz2` is the
  guest `www`. What lies beside images (`config.ml`, `*.map`, `*.xl.in`, `fat1.img.bz2`) is none.
- Old folders are emptied of images, and a pointer may be moved before its image arrives. So where
  the folder that it names has none, the images that history last put into one folder tell.
- Without a pointer, images may lie at the root or in the folder of a target: `unix/www.unix`.
- What a Xen domain is beside its image is in a template: the guest's own `NAME.xl.in` beside the
  image, or `xl.conf.in` at the root, for all.
"""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast, get_args

from mirage_hooks.boot import artifact
from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.guest import Target, check_name
from mirage_hooks.boot.revision import Revision

TARGETS: tuple[Target, ...] = get_args(Target)

_PREFIX = "mir-"
_OWN_TEMPLATE, _TEMPLATE = ".xl.in", "xl.conf.in"
# How the names of compressed images end, by the names that unpack.py has for compressions.
ENDINGS = {"bzip2": "bz2", "gzip": "gz", "xz": "xz", "zstd": "zst"}
_PACKED = rf"(?:\.(?:{'|'.join(ENDINGS.values())}))?"
_IMAGE = re.compile(rf"(.+)\.({'|'.join(TARGETS)}){_PACKED}")
_DISK = re.compile(rf"(.+)\.img{_PACKED}")
_ENDINGS = ("", *(f".{ending}" for ending in ENDINGS.values()))
# The names of images, and of disk images, as globs.
IMAGES = [f"*.{target}{ending}" for target in TARGETS for ending in _ENDINGS]
DISKS = [f"*.img{ending}" for ending in _ENDINGS]

# CI jobs add their images to one folder in a commit each: so many commits back are looked at.
_JOBS = 16


@dataclass(frozen=True, order=True)
class Found:
    """A guest that a repository holds by convention.

    `image` is its path as host.toml takes it; `where` is the image that it was told by, which the
    revision itself need not have any more.
    """

    name: str
    target: Target
    image: str
    where: str


@dataclass(frozen=True)
class Holding:
    """What a repository holds, sorted, and what is wrong with the folders that were passed over.

    A name may be there more than once: for several targets, or compressed in several ways.
    """

    guests: tuple[Found, ...] = ()
    problems: tuple[Error, ...] = ()


def find(revision: Revision) -> Holding:
    """Return what a revision holds by convention.

    A damaged pointer makes a problem of its folder, and the others are read all the same. Raises
    RepositoryError where git cannot read the root.
    """
    guests: list[Found] = []
    problems: list[Error] = []
    for folder in ("", *revision.folders("")):
        try:
            guests.extend(_in_folder(revision, folder))
        except Error as error:
            problems.append(error)
    return Holding(tuple(sorted(guests)), tuple(problems))


def new_image(name: str, target: Target, compression: str) -> str:
    """Return the image path by which `find` knows a guest, for one that has none yet."""
    # What one prefix is taken off has to have two.
    prefix = _PREFIX if name.startswith(_PREFIX) else ""
    return f"{target}/{artifact.PLACE}/{prefix}{name}.{target}.{ENDINGS[compression]}"


def is_image(file: str) -> bool:
    """Whether a file would be taken for a guest's image, by its name."""
    return _guest(file, "") is not None


def template(revision: Revision, image: str) -> str | None:
    """Return the path of the template for a domain's image, as host.toml takes it; None for none.

    Raises RepositoryError where git cannot read on the way.
    """
    folder, file = _split(image)
    match = _IMAGE.fullmatch(file.removeprefix(_PREFIX))
    own = [f"{folder}/{match[1]}{_OWN_TEMPLATE}".removeprefix("/")] if match is not None else []
    for path in (*own, _TEMPLATE):
        with contextlib.suppress(Missing):
            artifact.locate(revision, path)
            return path
    return None


def disks(revision: Revision, image: str) -> dict[str, str]:
    """Return the disk images beside a guest's image: their paths, by what a template calls them.

    `fat1.img.bz2` is `fat1.img` and `fat1`. Paths are as host.toml takes them. Raises Missing where
    the image is not there yet, RepositoryError.
    """
    folder, _ = _split(image)
    here, _ = _split(artifact.locate(revision, image).blob.path)
    found: dict[str, str] = {}
    for file in revision.files(here):
        if (match := _DISK.fullmatch(file)) is not None:
            path = f"{folder}/{file}".removeprefix("/")
            found |= {match[1]: path, f"{match[1]}.img": path}
    return found


def is_same_site(one: str, other: str) -> bool:
    """Whether two names are one but for dots: MirageOS 3 leaves those of a site out of its file."""
    return one.replace(".", "") == other.replace(".", "")


def site(name: str, places: Iterable[str]) -> str:
    """Return the name of the site whose image is called `name`, with the dots that it left out.

    They are those in the name of the repository, folders or URLs of which `places` are: `mortio` is
    of `mort.io` where one is called `mort.io-deployment`. Where none tells, the site is `name`.
    """
    dotted = re.compile(r"(?<![\w.])" + r"\.?".join(map(re.escape, name)) + r"(?![\w.])")
    for place in places:
        called = re.split("[/:]", place.rstrip("/").removesuffix(".git"))[-1]
        if (match := dotted.search(called)) is not None:
            return match[0]
    return name


def _in_folder(revision: Revision, folder: str) -> list[Found]:
    base = f"{folder}/" if folder else ""
    files = revision.files(folder)
    if artifact.POINTER in files:
        pointed = base + artifact.follow(revision, base + artifact.POINTER)
        place = base + artifact.PLACE
        here = _guests((f"{pointed}/{name}" for name in revision.files(pointed)), place)
        return here or _last_added(revision, base, pointed, place)
    # Any other folder may be one that a pointer at the root named once.
    if folder in {"", *TARGETS}:
        return _guests((base + name for name in files), folder)
    return []


def _last_added(revision: Revision, base: str, pointed: str, place: str) -> list[Found]:
    """Return what history added to one folder: to the one pointed at, or else to the last."""
    literal = re.sub(r"([*?\[\\])", r"\\\1", base)
    paths = revision.added([f"{literal}*/{glob}" for glob in IMAGES], _JOBS)
    # A pathspec takes what is in a folder that it matches, too.
    depth = base.count("/") + 1
    added = _guests((path for path in paths if path.count("/") == depth), place)
    folders = [_split(one.where)[0] for one in added]
    told = pointed if pointed in folders else next(iter(folders), pointed)
    return [one for one in dict.fromkeys(added) if _split(one.where)[0] == told]


def _guests(paths: Iterable[str], place: str) -> list[Found]:
    """Return the guests whose images paths are; `place` is their folder as host.toml has it."""
    return [found for path in paths if (found := _guest(path, place)) is not None]


def _guest(path: str, place: str) -> Found | None:
    file = _split(path)[1]
    match = _IMAGE.fullmatch(file.removeprefix(_PREFIX))
    if match is None:
        return None
    try:
        name = check_name(match[1])
    except ValueError:
        return None
    image = artifact.check_template(f"{place}/{file}" if place else file)
    return Found(name, cast("Target", match[2]), image, path)


def _split(path: str) -> tuple[str, str]:
    folder, _, file = path.rpartition("/")
    return folder, file
