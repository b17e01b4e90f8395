"""Which images of a guest are old at a revision, and may go from its tree."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mirage_hooks.boot import artifact, provenance
from mirage_hooks.boot.errors import RepositoryError
from mirage_hooks.boot.placement import Shelf, located, place
from mirage_hooks.boot.revision import Revision

_CHECKSUM_BYTES = 1 << 14


@dataclass(frozen=True)
class _Old:
    """An image of a guest that a revision holds. `own` says that it is no carried one."""

    published: str
    path: str
    blob: str
    own: bool


def find(revision: Revision, shelf: Shelf, new: str, keep: int) -> list[str]:
    """Return what is to be removed for a guest to have its `keep` newest images, `new` among them.

    `new` is that one's blob. What an image path leads to stays, as do what other files there are.
    """
    used = {found.blob.path for one in shelf.others if (found := located(revision, one))}
    old = sorted(_old(revision, shelf.guest.image), key=lambda one: one.published, reverse=True)
    kept = list(dict.fromkeys([new, *(one.blob for one in old if one.own)]))[:keep]
    return [
        path
        for one in old
        if not (one.own and one.blob in kept) and one.path not in used
        for path in (one.path, provenance.checksum_path(one.path))
        if revision.oid(path) is not None
    ]


def _old(revision: Revision, template: str) -> Iterator[_Old]:
    """Yield the images of a guest, in whichever folder a pointer named once."""
    parts = template.split("/")
    at = next((i for i, part in enumerate(parts) if artifact.PLACE in part), None)
    if at is None:
        return
    before, _, after = parts[at].partition(artifact.PLACE)
    pattern = re.compile(f"{re.escape(before)}(.+){re.escape(after)}")
    folder = "/".join(parts[:at])
    names = revision.folders(folder) if at + 1 < len(parts) else revision.files(folder)
    for match in filter(None, map(pattern.fullmatch, names)):
        path = place(template, match[1]).path
        blob = revision.oid(path)
        if blob is not None:
            facts = _facts(revision, path)
            own = facts.get(provenance.SOURCE_COMMIT, match[1]) == match[1]
            yield _Old(facts.get(provenance.PUBLISHED, ""), path, blob, own)


def _facts(revision: Revision, image: str) -> dict[str, str]:
    try:
        beside = revision.find(provenance.checksum_path(image))
        return provenance.read(beside.text(_CHECKSUM_BYTES)) if beside is not None else {}
    except RepositoryError:  # somebody else's
        return {}
