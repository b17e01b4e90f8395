"""From TOML to validated values: one message that names file, table and key."""

import tomllib
from typing import TypeVar

import msgspec

from mirage_hooks.boot.errors import ConfigError

T = TypeVar("T")

# The parser's work on a dotted key grows with the square of its dots.
_MOST_DOTS = 400


def parse(text: str, source: str) -> dict[str, object]:
    """Return the tables of a TOML text. Raises ConfigError."""
    if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
        raise ConfigError(f"{source} has a line with more than {_MOST_DOTS} dots")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # the parser's own, and Python's on huge numbers
        raise ConfigError(f"{source} is no valid TOML: {error}") from None


def convert(table: object, to: type[T], source: str, where: str) -> T:
    """Return `table` as a value of type `to`. Raises ConfigError.

    msgspec names a place as `$.check.within`; `where` (such as "guest www") takes the place of `$`.
    """
    try:
        return msgspec.convert(table, to)
    except msgspec.ValidationError as error:
        message, at, place = str(error).rpartition(" - at `$")
        if not at:
            message, place = place, ""
        place = place.rstrip("`").removeprefix(".")
        message = message.replace("Object contains unknown field", "unknown key").replace("`", "'")
        at = " ".join(part for part in (where, place.replace(".", " ")) if part)
        raise ConfigError(f"{source}: {at}: {message}" if at else f"{source}: {message}") from None


def take_table(
    tables: dict[str, object], key: str, source: str, where: str = ""
) -> dict[str, object]:
    """Remove and return the table of tables under `key`, empty where there is none.

    Raises ConfigError where something else stands there.
    """
    table = tables.pop(key, {})
    at = f"{where}: " if where else ""
    if not isinstance(table, dict):
        raise ConfigError(f"{source}: {at}{key} has to be a table")
    for name, value in table.items():
        if not isinstance(value, dict):
            raise ConfigError(f"{source}: {at}{key} {name}: it has to be a table")
    return table
