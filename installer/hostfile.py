"""The host file as `install` writes it: what was asked for, and found; all else as it was."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import tomlkit
from tomlkit import TOMLDocument

from mirage_hooks.boot import admission, artifact, convention, description, host, targets, template
from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.convention import Found, Holding
from mirage_hooks.boot.errors import ConfigError, RepositoryError
from mirage_hooks.boot.guest import check_name
from mirage_hooks.boot.host import Host, Tenders
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Blob, Revision
from mirage_hooks.boot.template import Bound


@dataclass(frozen=True)
class GuestOption:
    """A guest named on the command line, for a repository without a manifest."""

    name: str
    target: str
    image: str


@dataclass(frozen=True)
class HostFile:
    """The text of a host file, the branch it names, and what is to be said of it, a line each."""

    text: str
    branch: str
    lines: list[str]


def compose(
    repository: Repository,
    state: State,
    branch: str | None,
    user: str | None,
    guests: list[GuestOption],
) -> HostFile:
    """Return the host file that is to be written.

    In a repository without a manifest, guests are found by convention, once: what the operator
    takes out stays out. Raises ConfigError, HostError, RepositoryError where it would not do.
    """
    for guest in guests:
        _check_guest(guest)
    document = _document(state)
    if branch is not None or "branch" not in document:
        document["branch"] = branch or _current_branch(repository)
    if user is not None:
        document["user"] = user
    if "limits" not in document:
        limits = tomlkit.table()
        limits["targets"] = list(targets.found(Tenders()))
        document["limits"] = limits
    lines = [line for guest in guests for line in _describe(document, guest)]
    first = "guest" not in document
    bound = _parse(document, str(state.host_file))
    if bound.user is not None:
        admission.check_user(bound.user)
    tip = _tip(repository, bound.branch)
    if tip is not None:
        lines += _find(document, bound, tip, first, repository.places)
        lines += _take_templates(document, tip)
    return HostFile(tomlkit.dumps(document), bound.branch, lines)


def _take_templates(document: TOMLDocument, tip: Revision) -> list[str]:
    """Name the template of each domain that has none named, and bind the bridges in it.

    What is taken is said, a line each.
    """
    lines = []
    for name, table in document.get("guest", {}).items():
        if table.get("target") != "xen" or "image" not in table or "template" in table:
            continue
        if (path := convention.template(tip, table["image"])) is None:
            continue
        table["template"] = path
        lines.append(f"found by convention: {name} has the template {path}")
        lines += _say_disks(name, table["image"], tip)
        try:
            lines += _bind_bridges(document, name, artifact.locate(tip, path).blob)
        except (ConfigError, RepositoryError) as error:  # the host file may be what mends it
            lines.append(f"{name} cannot be deployed yet: {error}")
    return lines


def _bind_bridges(document: TOMLDocument, name: str, blob: Blob) -> list[str]:
    """Bind the bridges of this host that a guest's template names; say so, a line each.

    Raises ConfigError for what it may not say, RepositoryError where it cannot be read.
    """
    lines = []
    bound = Bound.by(_parse(document, host.NAME))
    told = template.read(blob.text(blob.size), blob.path, name, bound)
    networks = msgspec.convert(told.get("network", {}), dict[str, dict[str, Any]])
    for bridge in {one["network"] for one in networks.values()}:
        if _is_bridge(bridge) and bridge not in document.get("networks", {}):
            tables = document.setdefault("networks", tomlkit.table(is_super_table=True))
            tables.setdefault(bridge, tomlkit.table())["bridge"] = bridge
            lines.append(f"network {bridge}: guests may be on that bridge, as {blob.path} has it")
    return lines


def _say_disks(name: str, image: str, tip: Revision) -> list[str]:
    """Say of each disk image beside a guest's image how the guest would have it, a line each."""
    try:
        paths = dict.fromkeys(convention.disks(tip, image).values())
    except Missing:
        return []
    return [
        f"beside it: the disk {path}. Where the template does not name it, {name} has it by "
        f"[guest.{json.dumps(name)}.block.xvda] image = {path!r} in {host.NAME}"
        for path in paths
    ]


def _is_bridge(name: str) -> bool:
    return Path("/sys/class/net", name, "bridge").is_dir()


def unbound(revision: Revision, bound: Host) -> Holding:
    """Return what a revision without a manifest holds by convention, and no guest here is."""
    if revision.find(description.NAME) is not None:
        return Holding()
    held = convention.find(revision)
    return replace(held, guests=tuple(one for one in held.guests if not _is_bound(one, bound)))


def _is_bound(found: Found, bound: Host) -> bool:
    """Whether a guest is described that was found, be it by the name of its site."""
    return any(
        name == found.name or _is_site(name, table.get("image"), found.name, found.image)
        for name, table in bound.guest.items()
    )


def _is_site(name: str, image: object, other: str, others: str) -> bool:
    return image == others and convention.is_same_site(name, other)


def _find(
    document: TOMLDocument, bound: Host, tip: Revision, first: bool, places: Iterable[str]
) -> list[str]:
    """Describe what is found by convention, where nothing is described yet; say what was found."""
    held = unbound(tip, bound)
    lines = [f"passed over: {problem.message}" for problem in held.problems]
    taken: set[str] = set()
    for found in held.guests:
        image = f"({found.target}), image {found.image}"
        if first and found.name not in taken and _runs(found, bound):
            taken.add(found.name)
            name = convention.site(found.name, places) if found.target == "xen" else found.name
            _describe(document, GuestOption(name, found.target, found.image))
            lines.append(f"found by convention: guest {name} {image}")
            if found.target == "xen":
                lines.append(_say_site(found, name))
        else:
            how = how_to_take(found, bound)
            lines.append(f"found, but not taken: {found.name} {image}: {how}")
    return lines


def _say_site(found: Found, name: str) -> str:
    option = f"--guest SITE --target {found.target} --image '{found.image}'"
    by = "as the repository is" if name != found.name else "as its image is"
    return (
        f"its site, and so its domain, is called {name}, {by}; if it has other dots: "
        f"mirage-hooks install {option}"
    )


def how_to_take(found: Found, bound: Host) -> str:
    """Return what makes a guest of what was found, or why nothing does."""
    if not _runs(found, bound):
        return f"`targets` in [limits] of {host.NAME} does not have {found.target}"
    option = f"--guest {found.name} --target {found.target} --image '{found.image}'"
    return f"to take it: mirage-hooks install {option}"


def _runs(found: Found, bound: Host) -> bool:
    return found.target in bound.limits.targets


def _document(state: State) -> TOMLDocument:
    if state.host_file.exists():
        host.load(state.host_file)
        return tomlkit.parse(state.host_file.read_text(encoding="utf-8"))
    document = tomlkit.document()
    document.add(tomlkit.comment("What this host lets the repository run. See docs/reference.md."))
    return document


def _describe(document: TOMLDocument, guest: GuestOption) -> list[str]:
    """Describe a guest, in place of one that was its site by another name; say so, in a line."""
    tables = document.setdefault("guest", tomlkit.table(is_super_table=True))
    before = [
        name
        for name, table in tables.items()
        if name != guest.name and _is_site(name, table.get("image"), guest.name, guest.image)
    ]
    for name in before:
        tables.setdefault(guest.name, tables.pop(name))
    table = tables.setdefault(guest.name, tomlkit.table())
    table["target"] = guest.target
    table["image"] = guest.image
    return [f"guest {name} is called {guest.name} from now on" for name in before]


def _parse(document: TOMLDocument, source: str) -> Host:
    return host.parse(tomlkit.dumps(document), source)


def _current_branch(repository: Repository) -> str:
    branch = repository.head_branch()
    if branch is None:
        raise RepositoryError(
            f"{repository.name} has no branch checked out",
            "name the branch that deploys: --branch BRANCH",
        )
    return branch


def _tip(repository: Repository, branch: str) -> Revision | None:
    """Return the tip of a branch, None in an empty bare repository: its first push is to come."""
    if repository.git.bare and not repository.git.heads:
        return None
    return repository.tip(branch)


def _check_guest(guest: GuestOption) -> None:
    try:
        check_name(guest.name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    targets.named(guest.target)
    artifact.check_template(guest.image)
