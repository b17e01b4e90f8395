"""The programs that run images: where they are, and what they say of themselves."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mirage_hooks.boot import ownership
from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.host import NAME, Tenders

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANSWER_SECONDS = 10.0
_ABI = re.compile(r"^ABI version ([0-9]{1,9})$", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """A tender's usual name, and the Debian package that has it, where one has."""

    name: str
    package: str | None = None


def find(target: str, program: Program, tenders: Tenders) -> str:
    """Return the path of a target's tender, or of what is to start it.

    Raises HostError where it cannot be executed, or somebody else could change what is.
    """
    given: str | tuple[str, ...] | None = getattr(tenders, target)
    named = given[0] if isinstance(given, tuple) else given
    path = named if named and "/" in named else shutil.which(named or program.name, path=PATH)
    if path is None:
        how = f"apt-get install {program.package}" if program.package else "install it"
        raise HostError(
            f"{named or program.name} is not on this host's PATH",
            f"{how}, or name it: {target} = '/path/to/{program.name}' in [tenders] of {NAME}",
        )
    if not os.access(path, os.X_OK) or Path(path).is_dir():
        raise HostError(f"{path} is no program that can be executed", f"{NAME} names it")
    ownership.refuse_foreign([Path(path)])
    return path


def abi(tender: str) -> int:
    """Return the version of Solo5's ABI that a tender runs. Raises HostError."""
    said = version(tender)
    if (match := _ABI.search(said)) is None:
        raise HostError(f"{tender} --version names no ABI: {said[:200]!r}")
    return int(match[1])


def version(tender: str) -> str:
    """Return what a tender says of itself. Raises HostError where it cannot even do that.

    A library that is gone, or another machine's program, is found so before it is to run a guest.
    """
    try:
        done = subprocess.run(
            [tender, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{tender} does not say what it is: {error}") from None
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode != 0:
        raise HostError(f"{tender} --version ended with {done.returncode}: {said[:200]}")
    return said
