"""What tests of partial clones share: an upstream that filters, and what a clone lacks."""

import shutil
from pathlib import Path

from support import COMMAND, Site, run


def let_filter(site: Site) -> None:
    """Have the upstream leave out what is not asked for."""
    run("git", "config", "uploadpack.allowFilter", "true", cwd=site.upstream)


def clone_small(site: Site) -> None:
    """Have a clone as `mirage-hooks clone` makes it, instead of the clone there was."""
    let_filter(site)
    shutil.rmtree(site.clone)
    run(COMMAND, "clone", str(site.upstream), str(site.clone), cwd=site.clone.parent)


def images(site: Site, ref: str = "main") -> list[str]:
    """Return the blobs of all images that the history of a branch upstream has, oldest first."""
    listed = run(
        *("git", "log", "--reverse", "--format=", "--raw", "--no-abbrev", ref, "--", "*.unix"),
        cwd=site.upstream,
    ).stdout
    return [line.split()[3] for line in listed.splitlines() if line.split()[4] != "D"]


def here(site: Site) -> set[str]:
    """Return the objects that are in the clone."""
    options = ("--batch-all-objects", "--batch-check=%(objectname)")
    return set(run("git", "cat-file", *options, cwd=site.clone).stdout.split())


def fetched(site: Site) -> list[int]:
    """Return which of the upstream's images are in the clone, counted from 0."""
    objects = here(site)
    return [at for at, oid in enumerate(images(site)) if oid in objects]


def log_asking(site: Site) -> Path:
    """Return a file that has a line for each time that the clone asks the upstream from now on."""
    log, program = (site.clone.with_name(name) for name in ("asked", "upload-pack"))
    program.write_text(f'#!/bin/sh\necho asked >>"{log}"\nexec git-upload-pack "$@"\n')
    program.chmod(0o755)
    site.git("config", "remote.origin.uploadpack", str(program))
    return log
