"""The desired state: what a revision of the repository, bound to this host, says should run."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from mirage_hooks.boot import (
    admission,
    artifact,
    binding,
    description,
    host,
    secrets,
    targets,
    template,
)
from mirage_hooks.boot.artifact import Artifact, Missing, Provenance
from mirage_hooks.boot.desired import Desired, DesiredState
from mirage_hooks.boot.device import Volume
from mirage_hooks.boot.errors import ConfigError, Error
from mirage_hooks.boot.guest import Boot, Guest
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.revision import Blob, Revision
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store


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
    source = f"{description.NAME} at {revision.id[:7]}"
    described = description.parse(revision, source)
    unselected = set()
    found: dict[str, _Described] = {}
    waiting: dict[str, Missing] = {}
    for name in {**(described or {}), **bound.guest}:
        theirs, ours = (described or {}).get(name), bound.guest.get(name, {})
        if theirs is None and described is not None and not set(ours) >= description.WHOLE:
            continue  # the host's word on a guest that the manifest no longer has
        if not bound.selects(name):
            unselected.add(name)
            continue
        if theirs is not None:
            description.refuse_host_keys(name, theirs, source)
            if ours:
                description.convert(name, theirs, source, bound)
        table, where = {**(theirs or {}), **ours}, host.NAME if ours else source
        try:
            table, watched = description.fill_in(revision, name, table, template.Bound.by(bound))
        except Missing as missing:
            waiting[name] = missing
            continue
        found[name] = _Described(*_bind(name, table, where, bound, installation), watched)
    binding.refuse_shared({name: one.boot for name, one in found.items()})
    return _Bound(found, waiting, frozenset(unselected))


class _Images(NamedTuple):
    """What a guest is booted from, as the revision has it: its image, and disk images by device."""

    image: Artifact
    disks: Mapping[str, Artifact]

    def unread(self, store: Store) -> Iterator[Blob]:
        """Yield the blobs that are to be read: a store does not know what comes of them."""
        if store.reads(self.image.blob):
            yield self.image.blob
        yield from (disk.blob for disk in self.disks.values() if store.reads_disk(disk.blob))

    def refuse(self, away: Mapping[str, Error]) -> None:
        """Raise Error where one could not be had."""
        for one in (self.image, *self.disks.values()):
            if one.blob.oid in away:
                raise away[one.blob.oid]


def read(
    revision: Revision, bound: Host, store: Store, vault: Vault, installation: str
) -> DesiredState:
    """Return the desired state at a revision: images unpacked and verified, secrets kept.

    A guest whose image or secrets cannot serve is among the unready ones, with the reason; a
    manifest or a host file that cannot raises ConfigError or RepositoryError.
    """
    guests: dict[str, Desired] = {}
    unready: dict[str, Error] = {}
    watched = [description.NAME]
    described, waiting, unselected = _read_bound(revision, bound, installation)
    for name, missing in waiting.items():
        watched.extend(missing.watched)
        unready[name] = missing
    located: dict[str, _Images] = {}
    for name, (guest, _, others) in described.items():
        watched.extend(others)
        try:
            image = artifact.locate(revision, guest.image)
            watched.extend(image.watched)
            disks = {name: artifact.locate(revision, path) for name, path in guest.disks.items()}
            watched.extend(path for disk in disks.values() for path in disk.watched)
            located[name] = _Images(image, disks)
        except Missing as missing:
            watched.extend(missing.watched)
            unready[name] = missing
        except Error as error:
            unready[name] = error
    away = revision.bring(blob for images in located.values() for blob in images.unread(store))
    for name, images in located.items():
        guest, boot, _ = described[name]
        try:
            images.refuse(away)
            hidden = secrets.load(bound.secrets[name].args_file) if name in bound.secrets else ()
            digest = vault.add(hidden) if hidden else None
            whole = msgspec.structs.replace(boot, secrets=digest)
            guests[name] = _prepare(guest, images, revision.id, store, whole)
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


def _bind(
    name: str, table: dict[str, object], source: str, bound: Host, installation: str
) -> tuple[Guest, Boot]:
    """Return a table as a guest that this host can and may run, and how. Raises ConfigError."""
    guest = description.convert(name, table, source, bound)
    where = f"guest {name}"
    try:
        description.check_paths(guest)
        admission.admit(guest, bound)
        targets.of(guest).check(guest)
        return guest, _boot(guest, bound, installation)
    except ConfigError as error:
        raise ConfigError(f"{source}: {where}: {error.message}", error.hint) from None


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


def _prepare(guest: Guest, images: _Images, commit: str, store: Store, boot: Boot) -> Desired:
    """Return a guest with its images, which `boot` does not name yet. Raises Error."""
    found, disks = images
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
