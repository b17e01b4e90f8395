"""`mirage-hooks-tap`: makes and removes taps for an operator who may not; that, and nothing else.

It is run through sudo, and does what one request on its standard input says, one of:

    {"do": "add", "name": "mh0123456789ab", "bridge": "br0", "alias": "mirage-hooks:...:www:7"}
    {"do": "sweep", "installation": "0123456789ab", "keep": ["mirage-hooks:...:www:7"]}

A tap it makes can be opened by who called sudo; it removes only taps that can. It answers with one
line of JSON, `{"taps": [...]}` or `{"error": ..., "hint": ...}`, and ends with 0 or as errors.py
says.

Root installs it where the operator cannot write, else it would be root for the operator; PATH is
where this repository is:

    python3 -m venv /opt/mirage-hooks && /opt/mirage-hooks/bin/pip install PATH
    sed -i '1s/$/ -I/' /opt/mirage-hooks/bin/mirage-hooks-tap
    install -D -m 644 /dev/null /etc/mirage-hooks/bridges && echo br0 >/etc/mirage-hooks/bridges

The second line keeps the operator's environment out of Python, as sudo does without `SETENV`. In
/etc/sudoers.d/mirage-hooks, where `""` stands for no arguments (sudoers(5)):

    operator ALL=(root) NOPASSWD: /opt/mirage-hooks/bin/mirage-hooks-tap ""

It looks after its own files, to find a careless installation; no program can find more than that.
"""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mirage_hooks.boot import links, ownership, taps
from mirage_hooks.boot.errors import ConfigError, Error, HostError

_REQUEST_BYTES = 64 << 10


def main() -> int:
    """Do what the request on standard input says; return the exit code."""
    try:
        uid = _caller()
        _refuse_unsafe()
        done = serve(sys.stdin.buffer.read(_REQUEST_BYTES + 1), uid)
    except Error as error:
        print(json.dumps({"error": error.message, "hint": error.hint}))
        return error.exit_code
    print(json.dumps({"taps": done}))
    return 0


def serve(data: bytes, uid: int) -> list[str]:
    """Do for a user what a request says; return the names of the taps that it was done to.

    Raises ConfigError for what is no request, HostError where it cannot be done.
    """
    if len(data) > _REQUEST_BYTES:
        raise ConfigError(f"a request has at most {_REQUEST_BYTES >> 10} KiB")
    try:
        request = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigError("the request is not JSON") from None
    match request:
        case {"do": "add", "name": name, "bridge": bridge, "alias": alias, **rest} if not rest:
            _check("name", name, links.TAP_NAME.fullmatch)
            _check("alias", alias, links.TAP_ALIAS.fullmatch)
            _check("bridge", bridge, _bridges().__contains__, f"list it in {taps.HELPER_BRIDGES}")
            taps.make(name, bridge, uid, alias)
            return [name]
        case {"do": "sweep", "installation": installation, "keep": [*keep], **rest} if not rest:
            _check("installation", installation, re.compile(links.INSTALLATION).fullmatch)
            for alias in keep:
                _check("keep", alias, links.TAP_ALIAS.fullmatch)
            return taps.remove(installation, keep, owner=uid)
    raise ConfigError("the request is neither to add a tap nor to sweep them")


def _check(field: str, value: object, passes: Callable[[str], object], hint: str = "") -> None:
    if not isinstance(value, str) or not passes(value):
        # Cut: it goes to a terminal and into logs.
        raise ConfigError(f"mirage-hooks-tap: {field} {str(value)[:100]!r} is not allowed", hint)


def _caller() -> int:
    """Return the id of the user who called sudo, which is where that variable is from."""
    if len(sys.argv) != 1:
        raise ConfigError("mirage-hooks-tap takes no arguments, but a request on standard input")
    uid = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not re.fullmatch(r"[1-9][0-9]{0,9}", uid):
        raise HostError(
            "mirage-hooks-tap has to be run by sudo, for a user who is not root",
            "root needs no helper: run mirage-hooks itself",
        )
    return int(uid)


def _bridges() -> set[str]:
    path = taps.HELPER_BRIDGES
    ownership.refuse_foreign([path, *path.parents])
    try:
        return set(path.read_text().split())
    except (OSError, ValueError) as error:
        raise HostError(f"{path} cannot be read: {error}", "write a bridge a line") from None


def _refuse_unsafe() -> None:
    """Raise HostError where a part of this program is not root's, or can be written by others."""
    library = importlib.util.find_spec("pyroute2")
    files = {
        sys.executable,
        sys.argv[0],
        *sys.path,
        *(getattr(module, "__file__", None) or "/" for module in list(sys.modules.values())),
        library.origin if library is not None and library.origin else "/",
    }
    named = {path for file in files for path in (Path(file), Path(file).resolve())}
    try:
        ownership.refuse_foreign(named | {folder for path in named for folder in path.parents})
    except HostError as error:
        raise HostError(
            f"mirage-hooks-tap is not safe to run as root: {error.message}",
            "have root install it where nobody else can write, such as in /opt/mirage-hooks",
        ) from None
