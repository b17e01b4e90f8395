"""The desired state: what a revision of the repository, bound to this host, says should run."""

import dataclasses
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from mirage_hooks.boot import (
    artifact,
    binding,
    convention,
    device,
    host,
    secrets,
    tables,
    targets,
    template,
)
from mirage_hooks.boot.artifact import Artifact, Missing, Provenance
from mirage_hooks.boot.device import NetworkConfig, Volume
from mirage_hooks.boot.errors import ConfigError, Error
from mirage_hooks.boot.guest import Boot, Domain, Guest, check_name
from mirage_hooks.boot.host import Host, Limits
from mirage_hooks.boot.revision import Revision
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store

NAME = "mirage-hooks.toml"
_MANIFEST_BYTES = 1 << 20
_TEMPLATE_BYTES = 1 << 16

# What only the host may say of a guest.
_HOST_KEYS = frozenset({"user"})
# What makes a guest of the host's own.
_WHOLE = frozenset({"target", "image"})


@dataclass(frozen=True)
class Desired:
    """One guest as it should run."""

    guest: Guest
    boot: Boot
    provenance: Provenance
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class DesiredState:
    """What should run at a revision, and the paths it was read from.

    `selection` is the host's choice of guests, None for all; `unselected` are the others. `startup`
    is the place of each guest, 0 where it has none, in the order in which they are booted.
    """

    revision: str
    guests: dict[str, Desired] = field(default_factory=dict)
    unready: dict[str, Error] = field(default_factory=dict)
    watched: tuple[str, ...] = ()
    selection: tuple[str, ...] | None = None
    unselected: frozenset[str] = frozenset()
    startup: Mapping[str, int] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Every guest that is to run here."""
        return frozenset(self.guests) | frozenset(self.unready)

    @property
    def broken(self) -> list[str]:
        """The guests whose image or secrets are there, but cannot serve."""
        return sorted(name for name, why in self.unready.items() if not isinstance(why, Missing))

    @property
    def lost(self) -> bool:
        """Whether no guest at all is described, though nobody said that none is to run."""
        return not self.names and not self.unselected and self.selection != ()

    @property
    def why_empty(self) -> str:
        """Why no guest is to run here, where none is."""
        if self.selection is None:
            return f"no guest is described: commit a {NAME}, or use install --guest"
        if not self.selection:
            return f"no guest is to run here: guests = [] in {host.NAME}"
        return f"none of this host's guests is described: {', '.join(self.selection)}"


def read_guests(revision: Revision, bound: Host) -> dict[str, Guest]:
    """Return the guests of a revision that are to run on the host, bound to it.

    Raises ConfigError, RepositoryError.
    """
    found = _read_bound(revision, bound, installation="").guests
    return {name: one.guest for name, one in found.items()}


class _Described(NamedTuple):
    """A guest bound to the host, what boots it, without image and secrets yet, and what it is of.

    `watched` are the paths that it was read from, beside the manifest.
    """

    guest: Guest
    boot: Boot
    watched: tuple[str, ...]


class _Bound(NamedTuple):
    """The guests that are to run on the host, those whose template is to come, and the others."""

    guests: dict[str, _Described]
    waiting: dict[str, Missing]
    unselected: frozenset[str]


def _read_bound(revision: Revision, bound: Host, installation: str) -> _Bound:
    """Return the guests that are to run on the host, bound to it, and the names of the others.

    Of the others nothing but the name is looked at: they may be more than this host can do.
    """
    source = f"{NAME} at {revision.id[:7]}"
    described = _tables(revision, source)
    unselected = set()
    found: dict[str, _Described] = {}
    waiting: dict[str, Missing] = {}
    for name in {**(described or {}), **bound.guest}:
        theirs, ours = (described or {}).get(name), bound.guest.get(name, {})
        if theirs is None and described is not None and not set(ours) >= _WHOLE:
            continue  # the host's word on a guest that the manifest no longer has
        if not bound.selects(name):
            unselected.add(name)
            continue
        if theirs is not None:
            _refuse_host_keys(name, theirs, source)
            if ours:
                _convert(name, theirs, source, bound)
        table, where = {**(theirs or {}), **ours}, host.NAME if ours else source
        try:
            table, watched = _fill_in(revision, name, table, template.Bound.by(bound))
        except Missing as missing:
            waiting[name] = missing
            continue
        found[name] = _Described(*_bind(name, table, where, bound, installation), watched)
    binding.refuse_shared({name: one.boot for name, one in found.items()})
    return _Bound(found, waiting, frozenset(unselected))


def _fill_in(
    revision: Revision, name: str, table: dict[str, object], bound: template.Bound
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return a guest's table with what its template says beside, and the paths that it is from.

    Raises ConfigError, RepositoryError; Missing where the template is not there yet.
    """
    path = table.get("template")
    if not isinstance(path, str):
        return table, ()
    found = artifact.locate(revision, artifact.check_template(path))
    text, image = found.blob.text(_TEMPLATE_BYTES), table.get("image")
    if template.OPEN_DISK in text and isinstance(image, str):
        disks = convention.disks(revision, artifact.check_template(image))
        bound = dataclasses.replace(bound, disks=disks)
    told = template.read(text, found.blob.path, name, bound)
    domain = {**_as_table(told.pop("domain", {})), **_as_table(table.get("domain", {}))}
    return {**told, **table, "domain": domain}, found.watched


def describe(revision: Revision, others: Mapping[str, dict[str, object]]) -> list[Guest] | None:
    """Return the guests of a revision, each sound in itself and bound to no host.

    `others` are those of a host file, where there is one. One whose template is not there yet is
    without what that would say. None where nobody describes any. Raises ConfigError,
    RepositoryError.
    """
    described = _tables(revision, NAME)
    whole = {name: table for name, table in others.items() if set(table) >= _WHOLE}
    if described is None and not whole:
        return None
    guests = []
    for name, table in {**whole, **(described or {})}.items():
        if name in (described or {}):
            _refuse_host_keys(name, table, NAME)
        try:
            filled, _ = _fill_in(revision, name, table, template.Bound())
        except Missing:
            filled = table
        guest = _convert(name, filled, NAME, None)
        try:
            _check_paths(guest)
        except ConfigError as error:
            raise ConfigError(f"{NAME}: guest {name}: {error.message}", error.hint) from None
        guests.append(guest)
    return guests


def _tables(revision: Revision, source: str) -> dict[str, dict[str, object]] | None:
    """Return a manifest's guests as it has them, None where there is no manifest.

    `source` is how messages name it.
    """
    blob = revision.find(NAME)
    if blob is None:
        return None
    manifest = tables.parse(blob.text(_MANIFEST_BYTES), source)
    described = tables.take_table(manifest, "guest", source)
    if manifest:
        raise ConfigError(f"{source}: unknown key {next(iter(manifest))!r}")
    return {name: _as_table(table) for name, table in described.items()}


def _refuse_host_keys(name: str, table: dict[str, object], source: str) -> None:
    for key in _HOST_KEYS & set(table):
        raise ConfigError(
            f"{source}: guest {name}: unknown key {key!r}",
            f"the host says that, in [guest.{name}] of its {host.NAME}",
        )


def read(
    revision: Revision, bound: Host, store: Store, vault: Vault, installation: str
) -> DesiredState:
    """Return the desired state at a revision: images unpacked and verified, secrets kept.

    A guest whose image or secrets cannot serve is among the unready ones, with the reason; a
    manifest or a host file that cannot raises ConfigError or RepositoryError.
    """
    guests: dict[str, Desired] = {}
    unready: dict[str, Error] = {}
    watched = [NAME]
    described, waiting, unselected = _read_bound(revision, bound, installation)
    for name, missing in waiting.items():
        watched.extend(missing.watched)
        unready[name] = missing
    for name, (guest, boot, others) in described.items():
        watched.extend(others)
        try:
            found = artifact.locate(revision, guest.image)
            watched.extend(found.watched)
            disks = {name: artifact.locate(revision, path) for name, path in guest.disks.items()}
            watched.extend(path for disk in disks.values() for path in disk.watched)
            hidden = secrets.load(bound.secrets[name].args_file) if name in bound.secrets else ()
            digest = vault.add(hidden) if hidden else None
            whole = msgspec.structs.replace(boot, secrets=digest)
            guests[name] = _prepare(guest, found, disks, revision.id, store, whole)
        except Missing as missing:
            watched.extend(missing.watched)
            unready[name] = missing
        except Error as error:
            unready[name] = error
    return DesiredState(
        revision.id,
        guests,
        unready,
        tuple(dict.fromkeys(watched)),
        bound.guests,
        unselected,
        {name: one.guest.startup for name, one in described.items()},
    )


def _as_table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _convert(name: str, table: dict[str, object], source: str, bound: Host | None) -> Guest:
    """Return a table as a guest, in itself sound. Raises ConfigError."""
    where = f"guest {name}"
    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from None
    if "name" in table:
        raise ConfigError(f"{source}: {where}: unknown key 'name'")
    table = dict(table)  # its networks are taken out below, and the caller may read it again
    networks = {
        name: _network(config, source, f"{where}: network {name}")
        for name, config in tables.take_table(table, "network", source, where).items()
    }
    user = bound.user if bound is not None else None
    return tables.convert(
        {"user": user, **table, "name": name, "network": networks}, Guest, source, where
    )


def _network(table: object, source: str, where: str) -> NetworkConfig:
    try:
        normal = device.normalise(table) if isinstance(table, dict) else table
    except ValueError as error:
        raise ConfigError(f"{source}: {where}: {error}") from None
    return tables.convert(normal, NetworkConfig, source, where)


def _bind(
    name: str, table: dict[str, object], source: str, bound: Host, installation: str
) -> tuple[Guest, Boot]:
    """Return a table as a guest that this host can and may run, and how. Raises ConfigError."""
    guest = _convert(name, table, source, bound)
    where = f"guest {name}"
    try:
        _check_paths(guest)
        admit(guest, bound)
        targets.of(guest).check(guest)
        return guest, _boot(guest, bound, installation)
    except ConfigError as error:
        raise ConfigError(f"{source}: {where}: {error.message}", error.hint) from None


def _check_paths(guest: Guest) -> None:
    """Raise ConfigError where an image of a guest is none inside the repository."""
    for path in (guest.image, *guest.disks.values()):
        artifact.check_template(path)


def admit(asked: Guest | Boot, bound: Host) -> None:
    """Raise ConfigError where this host does not allow what a guest, or a recorded boot, asks."""
    if asked.memory > bound.limits.memory:
        raise ConfigError(
            f"memory {asked.memory} MiB is more than this host allows ({bound.limits.memory})",
            f"raise `memory` in [limits] of {host.NAME}",
        )
    if asked.target not in bound.limits.targets:
        raise ConfigError(
            f"target {asked.target} is not allowed on this host",
            f"`targets` in [limits] of {host.NAME} has: {', '.join(bound.limits.targets)}",
        )
    if asked.target == "xen":
        _admit_domain(asked.domain, bound.limits)
    if asked.user is not None or asked.target == "unix":
        check_user(asked.user)
    if isinstance(asked, Boot):
        binding.admit(asked, bound)


def _admit_domain(asked: Domain, limits: Limits) -> None:
    if asked.vcpus > limits.vcpus:
        raise ConfigError(
            f"vcpus {asked.vcpus} is more than this host allows ({limits.vcpus})",
            f"raise `vcpus` in [limits] of {host.NAME}",
        )
    if asked.type is not None and asked.type not in limits.domains:
        raise ConfigError(
            f"a domain of type {asked.type} is not allowed on this host",
            f"`domains` in [limits] of {host.NAME} has: {', '.join(limits.domains)}",
        )


def check_user(user: str | None) -> None:
    """Raise ConfigError where guests cannot be run as a user; None is who runs this."""
    if user is None:
        if os.geteuid() == 0:
            raise ConfigError(
                "a unix guest is native code, and root does not run it as root",
                f'name a user: mirage-hooks install --user USER, or user = "..." in {host.NAME}',
            )
        return
    try:
        account = pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise ConfigError(f"user {user!r} does not exist on this host") from None
    if account.pw_uid == 0:
        raise ConfigError(f"user {user!r} is root, who runs no guest")
    if os.geteuid() not in {0, account.pw_uid}:
        raise ConfigError(f"user {user!r} can be given only where root runs the guests")


def _boot(guest: Guest, bound: Host, installation: str) -> Boot:
    """Return what boots a guest, but for its image and its secrets. Raises ConfigError."""
    return Boot(
        target=guest.target,
        image="",
        arguments=targets.of(guest).arguments(guest),
        memory=guest.memory,
        network=guest.network,
        user=None if targets.of(guest).outside else guest.user,
        nics=binding.nics(guest, bound, installation),
        volumes=binding.volumes(guest, bound),
        domain=guest.domain,
    )


def _prepare(
    guest: Guest,
    found: Artifact,
    disks: Mapping[str, Artifact],
    commit: str,
    store: Store,
    boot: Boot,
) -> Desired:
    """Return a guest with its images, which `boot` does not name yet. Raises Error."""
    stored = store.add(found.blob)
    kept = {device: store.add_disk(disk.blob).sha256 for device, disk in disks.items()}
    attached = {device: Volume(readonly=True, image=disk) for device, disk in kept.items()}
    boot = msgspec.structs.replace(boot, volumes={**boot.volumes, **attached})
    targets.refuse_unfit(found.blob.path, boot, stored)
    provenance = Provenance(
        commit=commit,
        path=found.blob.path,
        blob=found.blob.oid,
        pointers=found.pointers,
        compression=stored.compression,
        packed_size=stored.packed_size,
        size=stored.size,
        disks={kept[device]: (disk.blob.path, disk.blob.oid) for device, disk in disks.items()},
    )
    boot = targets.of(guest).settle(guest, boot, stored)
    notices = (f"image {found.blob.path} is a script, not an ELF file",) if stored.script else ()
    return Desired(guest, msgspec.structs.replace(boot, image=stored.sha256), provenance, notices)
