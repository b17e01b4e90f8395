"""A copy of contrib/site in a repository of its own, and programs that record their calls."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support import run

SITE = Path(__file__).parents[1] / "contrib" / "site"

# MirageOS cannot be installed where tests run. What is in this folder builds, in its place, a
# program that serves the front page.
STAND_IN = Path(__file__).parent / "stand_in_mirage"

# Another one records how it is called, and leaves what the real one would: a Makefile, which builds
# no more than a copy of the front page.
MIRAGE = """\
#!/bin/sh
echo "mirage $* in $(basename "$PWD") with ADDR=${ADDR-} MASK=${MASK-} GWS=${GWS-}" >>CALLS
for target; do [ "$previous" != -t ] || break; previous=$target; done
case $target in unix) image=www ;; *) image=www.$target ;; esac
printf 'all:\\n\\tmkdir -p dist && cat htdocs/index.html >dist/%s\\n' "$image" >Makefile
"""

# Puts a page where it is told to, and records no more than that it was called.
JEKYLL = """\
#!/bin/sh
echo jekyll >>CALLS
for folder; do :; done
mkdir -p "$folder" && echo page >"$folder/index.html"
"""

# Opam and Debian's packages are not installed: how they are called is recorded.
OPAM = """\
#!/bin/sh
echo "opam $*" >>CALLS
case $* in
"exec -- "*) shift 2 && exec "$@" ;;
"switch set "*) exit 5 ;;
esac
"""
APT = '#!/bin/sh\necho "apt-get $*" >>CALLS\n'
SUDO = '#!/bin/sh\nexec "$@"\n'

RECORDER = '#!/bin/sh\necho "$(basename "$0") $*" >>CALLS\n'


def page_manifest() -> str:
    """Return the manifest that the site's page has for the deployment repository."""
    return (SITE / "README.md").read_text().partition("```toml\n")[2].partition("```")[0]


def leaving(image: Path) -> str:
    """Return MIRAGE with an image to leave."""
    return MIRAGE.replace("htdocs/index.html", str(image))


@dataclass(frozen=True)
class SiteCopy:
    """A copy of the site, the programs it finds first, and where these record their calls."""

    folder: Path
    programs: Path
    log: Path

    def put(self, name: str, text: str) -> None:
        """Have a program of this name, which may record to CALLS."""
        path = self.programs / name
        path.unlink(missing_ok=True)  # not through a link
        path.write_text(text.replace("CALLS", str(self.log)))
        path.chmod(0o755)

    def calls(self) -> list[str]:
        """Return what was recorded so far, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def configured(self) -> list[str]:
        """Return how mirage was called so far."""
        return [call for call in self.calls() if call.startswith("mirage ")]


def copy_site(folder: Path) -> SiteCopy:
    """Commit a copy of contrib/site in a folder."""
    copy = SiteCopy(folder / "site", folder / "programs", folder / "calls")
    shutil.copytree(SITE, copy.folder)
    copy.programs.mkdir()
    copy.put("mirage", MIRAGE)
    copy.put("jekyll", JEKYLL)
    run("git", "init", "-q", cwd=copy.folder)
    run("git", "add", ".", cwd=copy.folder)
    run("git", "commit", "-qm", "a site", cwd=copy.folder)
    return copy


def make(copied: SiteCopy, *goals: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run make in a copy."""
    return run("make", *goals, cwd=copied.folder, check=check)
