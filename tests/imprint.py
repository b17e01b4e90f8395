"""What `install` leaves in a clone: the same in every clone, so it is made once and then copied."""

import shutil
from collections.abc import Callable
from pathlib import Path

from mirage_hooks.boot import follow
from support import Site, make_site


class Imprint:
    """A clone in which mirage-hooks was installed by its command line, for others to be like it."""

    def __init__(self, folder: Path, compiled: Callable[[str], Path]) -> None:
        self._site = make_site(folder, compiled)
        self._site.install()

    def put(self, site: Site) -> None:
        """Have a site's clone as `Site.install` would leave it; nothing was done in it so far."""
        ours, theirs = (one.state.folder.parent for one in (self._site, site))
        for name in ("hooks", "mirage-hooks"):
            shutil.copytree(ours / name, theirs / name, dirs_exist_ok=True)
        for file in (ours / "config", Path(follow.trigger(ours)), *ours.glob("mirage-hooks/hid-*")):
            text = file.read_text().replace(str(self._site.upstream), str(site.upstream))
            copy = theirs / file.relative_to(ours)
            copy.write_text(text)
            copy.chmod(file.stat().st_mode)
