"""The host file: what this host lets the repository touch. Never read from a commit."""

import re
from pathlib import Path

import msgspec

from mirage_hooks.boot import ownership, tables
from mirage_hooks.boot.errors import ConfigError, HostError, RepositoryError
from mirage_hooks.boot.guest import Target, check_name

NAME = "host.toml"

# git-check-ref-format(1): `main~1` would be read as a revision, not as a branch.
_NO_BRANCH = re.compile(r"[\0- ~^:?*\[\\\x7f]|\.\.|@\{|//|^[-/.]|[/.]$")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What commits may ask for at most: targets, memory in MiB, an unpacked image in MiB."""

    targets: tuple[Target, ...] = ("unix",)
    memory: int = 1024
    image: int = 256


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a guest's secret arguments are."""

    args_file: str

    def __post_init__(self) -> None:
        if not self.args_file.startswith("/") or not self.args_file.isprintable():
            raise ValueError(
                f"args_file {self.args_file!r} has to be a whole path, like '/etc/mirage/www.args'"
            )


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The host file. `guests` are those that are to run here, None for all.

    `keep` is how many healthy states of each guest can be gone back to.
    """

    branch: str
    user: str | None = None
    guests: tuple[str, ...] | None = None
    keep: int = 3
    limits: Limits = Limits()
    guest: dict[str, dict[str, object]] = {}
    secrets: dict[str, Secrets] = {}

    def __post_init__(self) -> None:
        if not self.branch or _NO_BRANCH.search(self.branch):
            raise ValueError(f"branch {self.branch!r} is no branch")
        if self.keep < 1:
            raise ValueError(
                "keep has to be at least 1: a failed deploy goes back to what was healthy"
            )
        for name in self.guests or ():
            check_name(name)

    def selects(self, name: str) -> bool:
        """Whether a guest is among those that are to run here."""
        return self.guests is None or name in self.guests


def load(path: Path) -> tuple[Host, bytes]:
    """Return a host file, and its bytes as they were read.

    Raises ConfigError; RepositoryError where mirage-hooks is not installed.
    """
    try:
        path.stat()
        ownership.refuse_foreign([path])
        data = path.read_bytes()
        text = data.decode()
    except (FileNotFoundError, NotADirectoryError):
        raise RepositoryError(
            f"not installed in {path.parent.parent}",
            "run: mirage-hooks install",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from None
    return parse(text, str(path)), data


def parse(text: str, source: str) -> Host:
    """Return the host file in a text. Raises ConfigError."""
    host = tables.parse(text, source)
    guests = tables.take_table(host, "guest", source)
    limits = tables.convert(host.pop("limits", {}), Limits, source, "limits")
    secrets = {
        name: tables.convert(table, Secrets, source, f"secrets {name}")
        for name, table in tables.take_table(host, "secrets", source).items()
    }
    rest = tables.convert(host, Host, source, "")
    return msgspec.structs.replace(rest, limits=limits, guest=guests, secrets=secrets)
