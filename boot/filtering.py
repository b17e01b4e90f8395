"""Whether a server filters what it sends: one that does need not send old images."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mirage_hooks.boot import bounded
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.fetching import explained, without_secrets

FILTER = "--filter=blob:none"

# A server that has nothing to say is given up; seconds.
_SECONDS = 60
# How it is offered: by gitprotocol-v2(5); and before that behind the first ref, and a zero byte,
# which a trace shows as `\0` (gitprotocol-pack(5)). There the server has to give by their ids, too,
# what it left out.
_OFFERED = re.compile(r"< fetch=(?:.* )?filter(?: |$)", re.MULTILINE)
_OFFERED_BEFORE = re.compile(
    r"\\0(?=.* allow-tip-sha1-in-want )(?=.* allow-reachable-sha1-in-want ).* filter "
)


def is_offered(folder: str | Path, remote: str) -> bool:
    """Ask a remote, by its name or its URL, whether it filters. It is asked from a folder.

    Raises RepositoryError where it cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="mirage-hooks-") as private:
        trace = Path(private, "packets")
        told = {"GIT_TRACE_PACKET": str(trace)}
        ask(remote, folder, "ls-remote", "--", remote, "HEAD", seconds=_SECONDS, environment=told)
        said = trace.read_text(errors="replace") if trace.exists() else ""
        return bool(_OFFERED.search(said) or _OFFERED_BEFORE.search(said))


def ask(
    remote: str,
    folder: str | Path,
    *arguments: str,
    seconds: int,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run git in a folder, where it asks a remote; return what it said.

    Raises RepositoryError where nothing came of it.
    """
    told = {**bounded.SILENT, **(environment or {})}
    code, said = bounded.git(folder, *arguments, seconds=seconds, environment=told)
    if code:
        raise RepositoryError(
            f"nothing could be fetched from {without_secrets(remote)}: "
            f"{explained(code, said, seconds)}",
            "nothing was changed; once that is mended, run this again",
        )
    return said
