"""What tests of manifests share: texts of some, and a host and revisions to read them at."""

from collections.abc import Callable
from pathlib import Path

from mirage_hooks.boot import description
from mirage_hooks.boot.guest import Guest
from mirage_hooks.boot.host import Host, Limits
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.revision import Revision
from support import USER, run

HOST = Host("main", user=USER)
WWW = '[guest.www]\ntarget = "unix"\nimage = "www.unix"\n'
API = '[guest.api]\ntarget = "unix"\nimage = "api.unix"\n'
ALL_TARGETS = Limits(targets=("unix", "hvt", "spt", "virtio", "xen"))

Read = Callable[..., dict[str, Guest]]
Refusal = Callable[..., str]


def commit(folder: Path, text: str | None, files: dict[str, bytes] | None = None) -> Revision:
    """Commit a manifest, and files by their paths; return the revision."""
    contents = {**({description.NAME: text.encode()} if text is not None else {}), **(files or {})}
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    run("git", "add", "-A", cwd=folder)
    run("git", "commit", "-q", "--allow-empty", "-m", "change", cwd=folder)
    return Repository(folder).tip("main")
