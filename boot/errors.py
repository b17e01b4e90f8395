"""The exception tree: every message is written for the person who reads it."""

from typing import ClassVar

from mirage_hooks.boot.console import harmless


class Error(Exception):
    """A failure a user can understand: what and where in `message`, how to mend it in `hint`.

    Names from a repository may stand in both: their control characters are made visible.

    `exit_code` is what a command ends with; docs/reference.md lists them.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = harmless(message)
        self.hint = harmless(hint)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(Error):
    """mirage-hooks.toml, host.toml or a request says something that cannot be."""

    exit_code = 3


class RepositoryError(Error):
    """The git repository, or what a revision of it holds, does not serve."""

    exit_code = 4


class ImageError(Error):
    """An image cannot be unpacked, or is not what the guest needs."""

    exit_code = 5


class HostError(Error):
    """The host is in the way: disk, permissions, a port in use, a damaged state folder."""

    exit_code = 6
