"""What a revision says of its guests, bound to no host: its manifest, with templates filled in."""

import dataclasses
from collections.abc import Mapping

from mirage_hooks.boot import artifact, convention, device, host, tables, template
from mirage_hooks.boot.artifact import Missing
from mirage_hooks.boot.device import NetworkConfig
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Guest, check_name
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.revision import Revision

NAME = "mirage-hooks.toml"
_MANIFEST_BYTES = 1 << 20
_TEMPLATE_BYTES = 1 << 16

# What only the host may say of a guest.
_HOST_KEYS = frozenset({"user"})
# What makes a guest of the host's own.
WHOLE = frozenset({"target", "image"})


def describe(revision: Revision, others: Mapping[str, dict[str, object]]) -> list[Guest] | None:
    """Return the guests of a revision, each sound in itself and bound to no host.

    `others` are those of a host file, where there is one. One whose template is not there yet is
    without what that would say. None where nobody describes any. Raises ConfigError,
    RepositoryError.
    """
    described = parse(revision, NAME)
    whole = {name: table for name, table in others.items() if set(table) >= WHOLE}
    if described is None and not whole:
        return None
    guests = []
    for name, table in {**whole, **(described or {})}.items():
        if name in (described or {}):
            refuse_host_keys(name, table, NAME)
        try:
            filled, _ = fill_in(revision, name, table, template.Bound())
        except Missing:
            filled = table
        guest = convert(name, filled, NAME, None)
        try:
            check_paths(guest)
        except ConfigError as error:
            raise ConfigError(f"{NAME}: guest {name}: {error.message}", error.hint) from None
        guests.append(guest)
    return guests


def parse(revision: Revision, source: str) -> dict[str, dict[str, object]] | None:
    """Return a manifest's guests as it has them, None where there is no manifest.

    `source` is how messages name it. Raises ConfigError, RepositoryError.
    """
    blob = revision.find(NAME)
    if blob is None:
        return None
    manifest = tables.parse(blob.text(_MANIFEST_BYTES), source)
    described = tables.take_table(manifest, "guest", source)
    if manifest:
        raise ConfigError(f"{source}: unknown key {next(iter(manifest))!r}")
    return {name: _as_table(table) for name, table in described.items()}


def fill_in(
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


def refuse_host_keys(name: str, table: dict[str, object], source: str) -> None:
    """Raise ConfigError where a manifest's table of a guest says what only the host may."""
    for key in _HOST_KEYS & set(table):
        raise ConfigError(
            f"{source}: guest {name}: unknown key {key!r}",
            f"the host says that, in [guest.{name}] of its {host.NAME}",
        )


def convert(name: str, table: dict[str, object], source: str, bound: Host | None) -> Guest:
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


def check_paths(guest: Guest) -> None:
    """Raise ConfigError where an image of a guest is none inside the repository."""
    for path in (guest.image, *guest.disks.values()):
        artifact.check_template(path)


def _network(table: object, source: str, where: str) -> NetworkConfig:
    try:
        normal = device.normalise(table) if isinstance(table, dict) else table
    except ValueError as error:
        raise ConfigError(f"{source}: {where}: {error}") from None
    return tables.convert(normal, NetworkConfig, source, where)


def _as_table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}
