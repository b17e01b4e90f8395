"""Arguments that nobody is to read: from the host's own files, kept by a digest that tells nothing.

They stand in orders.json, since the monitor needs them, in domain.cfg, since xl does, and in the
vault; nowhere else.
"""

import contextlib
import hashlib
import hmac
import os
import shlex
import stat
from collections.abc import Iterable, Set
from pathlib import Path

import msgspec

from mirage_hooks.boot.errors import ConfigError, HostError
from mirage_hooks.boot.files import write_atomic
from mirage_hooks.boot.users import user_name

_FILE_BYTES = 64 << 10
_KEY = "key"
_KEY_BYTES = 32
# A shorter value, such as that of --pages=2, stands in too much else that a guest prints.
_VALUE_LENGTH = 4


def load(path: str) -> tuple[str, ...]:
    """Return the arguments in a file of the host's, one a line.

    Raises HostError where it cannot be read or others could have a hand in it, ConfigError for what
    cannot be an argument. What the file holds is in no message.
    """
    name = f"secrets file {path}"
    try:
        # A pipe must not keep us waiting. What was opened is what is judged, links followed.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            _refuse_unsafe(name, path, os.fstat(descriptor))
            data = os.read(descriptor, _FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(
            f"{name} cannot be read: {error.strerror}",
            f"write it, an argument a line, readable by {user_name(os.geteuid())} alone",
        ) from None
    if len(data) > _FILE_BYTES:
        raise ConfigError(f"{name} has more than {_FILE_BYTES >> 10} KiB", "shorten it")
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not UTF-8 text", "write an argument a line") from None
    for number, line in enumerate(lines, 1):
        if not line.isprintable():
            raise ConfigError(
                f"{name}: line {number} holds a control character",
                "take it out; a line ends with a newline alone",
            )
    return tuple(line for line in lines if line.strip() and not line.startswith("#"))


def _refuse_unsafe(name: str, path: str, status: os.stat_result) -> None:
    quoted = shlex.quote(path)
    if not stat.S_ISREG(status.st_mode):
        raise HostError(f"{name} is not a regular file", "write an argument a line into one")
    if status.st_uid not in {0, os.geteuid()}:
        raise HostError(
            f"{name} belongs to user {user_name(status.st_uid)}",
            f"run: chown {user_name(os.geteuid())} {quoted}",
        )
    if status.st_mode & 0o077:
        raise HostError(f"{name} is open to others", f"run: chmod 600 {quoted}")


def words(arguments: Iterable[str]) -> list[str]:
    """Return what of secret arguments is not to be shown: each, and its value; longest first."""
    found = set(arguments)
    values = {argument.partition("=")[2] for argument in found}
    found |= {value for value in values if len(value) >= _VALUE_LENGTH}
    return sorted(found, key=lambda word: (-len(word), word))


class Vault:
    """The folder `secrets/` of the state folder: secret arguments by their digest, and its key.

    The digest is keyed, since it is recorded and printed: one of a short secret could be guessed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, arguments: tuple[str, ...]) -> str:
        """Keep arguments; return their digest. Raises HostError."""
        data = msgspec.json.encode(arguments)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            digest = self._digest(data)
            path = self._folder / digest
            if not path.exists() or path.read_bytes() != data:
                write_atomic(path, data)
        except OSError as error:
            raise HostError(
                f"secret arguments cannot be kept in {self._folder}: {error.strerror}"
            ) from None
        return digest

    def read(self, digest: str) -> tuple[str, ...]:
        """Return the arguments of a digest. Raises HostError where they are gone or damaged."""
        path = self._folder / digest
        hint = "`mirage-hooks deploy` boots what the repository and the host's files say now"
        try:
            data = path.read_bytes()
            sound = hmac.compare_digest(self._digest(data), digest)
        except OSError as error:
            raise HostError(
                f"secret arguments {path} cannot be read: {error.strerror}", hint
            ) from None
        if not sound:
            raise HostError(f"secret arguments {path} were damaged on this host's disk", hint)
        return msgspec.json.decode(data, type=tuple[str, ...])

    def collect(self, keep: Set[str]) -> None:
        """Delete all but the key and the digests to keep. The caller holds the lock."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                if path.name not in {_KEY, *keep}:
                    path.unlink(missing_ok=True)

    def _digest(self, data: bytes) -> str:
        return hashlib.blake2b(data, key=self._key(), digest_size=32).hexdigest()

    def _key(self) -> bytes:
        """Return the key, made when it is first needed. Raises OSError, HostError."""
        path = self._folder / _KEY
        if not path.exists():
            self._make_key(path)
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:  # an empty one would be none at all
            raise HostError(
                f"{path} is damaged",
                f"run: rm {shlex.quote(str(path))}; the next deploy makes another, and boots "
                "guests with secrets again",
            )
        return key

    def _make_key(self, path: Path) -> None:
        """Make a key, unless another process, such as a `plan`, has just done so."""
        new = self._folder / f".{_KEY}.{os.getpid()}"
        write_atomic(new, os.urandom(_KEY_BYTES))
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
