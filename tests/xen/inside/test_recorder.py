"""The stand-in for xl, and the real one: one script for both, and the same words and exit codes."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import stand_in_xl
from in_dom0 import GUESTS, in_dom0

pytestmark = in_dom0

NAME = "recorded"
UUID = "11111111-2222-3333-4444-555555555555"
WAITS = "extra = 'delay=10000000'"
# A block device, made of a file.
VOLUME = Path("/dev/loop7")
DISK = f"disk = ['format=raw,vdev=xvda,access={{}},target={VOLUME}']"

# What is added to each configuration that the script names.
CONFIGS = {
    "good": f"uuid = '{UUID}'",
    "same-name": "",
    "unknown": "name = 'unknown'\nfrobnicate = 1",
    "absent": "name = 'other'\nkernel = '/nonexistent'",
    "no-elf": "name = 'other'\nkernel = '/etc/passwd'",
    "large": "name = 'other'\nmemory = 9000",
    "bridgeless": "name = 'other'\nvif = ['bridge=nobridge']",
    "broken": "vif = ['bridge=",
    "writer": "name = 'writer'\n" + DISK.format("rw"),
    "reader": "name = 'reader'\n" + DISK.format("ro"),
    "other-reader": "name = 'other-reader'\n" + DISK.format("ro"),
}

# What both are asked, in this order; {domid} is the number of the domain that was created last.
SCRIPT = (
    "xl nonsense",
    "xl list",
    "xl list -v",
    "xl list nosuch",
    "xl list 32000",
    "xl domid nosuch",
    "xl domname 32000",
    *(f"xl {order} nosuch" for order in ("destroy", "pause", "unpause", "shutdown", "console")),
    "xl rename nosuch other",
    "xl destroy",
    "xl destroy 0",
    "xl create /nonexistent.xl",
    "xl create -q absent",
    "xl create -q no-elf",
    "xl create -q large",
    "xl create -q bridgeless",
    "xl create broken",
    "xl list",
    "xl create -p good",
    "xl list -v recorded",
    "xl create -q same-name",
    "xl rename recorded renamed",
    "xl domid renamed",
    "xl domname {domid}",
    "xl domid {domid}",
    "xl list {domid}",
    "xenstore-read /local/domain/{domid}/name",
    "xenstore-read /local/domain/{domid}/vm",
    "xenstore-read /local/domain/{domid}/nosuch",
    "xenstore-read /local/domain/{domid}/control/feature-poweroff",
    f"xenstore-read /vm/{UUID}/name",
    "xenstore-ls /nosuch",
    "xl unpause renamed",
    "xl unpause renamed",
    "xl list -v renamed",
    "xl pause renamed",
    "xl pause renamed",
    "xl unpause renamed",
    "xl list renamed",
    "xl unpause renamed",
    "xl list renamed",
    "xenstore-write /local/domain/{domid}/control/shutdown poweroff",
    "xenstore-read /local/domain/{domid}/control/shutdown",
    "xl list renamed",
    "xl destroy renamed",
    "xl destroy renamed",
    f"xenstore-read /vm/{UUID}/name",
    "xl create -q unknown",
    "xl destroy unknown",
    "xl create -p writer",
    "xl create -q reader",
    "xl destroy writer",
    "xl create -p reader",
    "xl create -q writer",
    "xl create -p other-reader",
    "xl destroy reader",
    "xl destroy other-reader",
    "xl list",
)


@dataclass(frozen=True)
class Said:
    """What a command ended with and printed, without what differs from one run to the next."""

    code: int
    stdout: str
    stderr: str


@dataclass
class Side:
    """One of the two: where its tools are, if not on the PATH, and its guest, which only waits."""

    tools: Path | None
    kernel: Path
    configs: Path
    domid: str = "none"

    def play(self) -> list[Said]:
        """Go through the script."""
        self.configs.mkdir()
        for name, added in CONFIGS.items():
            lines = (f"name = '{NAME}'", f"kernel = '{self.kernel}'", "memory = 32", WAITS, added)
            (self.configs / name).write_text("\n".join(lines))
        return [self._said(line) for line in SCRIPT]

    def _said(self, line: str) -> Said:
        tool, *words = line.format(domid=self.domid).split()
        done = subprocess.run(
            [self._program(tool), *words],
            cwd=self.configs,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        if line.startswith("xl create") and done.returncode == 0:
            listed = subprocess.run(
                [self._program("xl"), "list"], capture_output=True, text=True, check=True
            ).stdout
            self.domid = listed.splitlines()[-1].split()[1]
        return Said(done.returncode, self._plain(done.stdout), self._plain(done.stderr))

    def _program(self, name: str) -> str | Path:
        return self.tools / name if self.tools else name

    def _plain(self, text: str) -> str:
        for pattern, plain in (
            # Numbers of domains, seconds, a domain that happens to run just then.
            (r"^(\S+) +\d+( +\d+ +\d+  )", r"\1 DOMID\2"),
            (r"^\d+$", "DOMID"),
            (r"(?<=/local/domain/)\d+|(?<=domain name ')\d+", "DOMID"),
            (r"Domain \d+:", "Domain DOMID:"),
            (r" +\d+\.\d\b", " SECONDS"),
            (r"     ------", "     -b----"),
            (r"near `[^']*'", "near `...'"),
            (r"broken:\d+", "broken:LINE"),
            (r"^Usage: .*(?:\n.*)*", ""),
            (r"^This can only be done .*\n+", ""),
            # Processes of hotplug scripts have numbers, too.
            (r"^libxl: error: libxl_exec.c.*\n", ""),
        ):
            text = re.sub(pattern, plain, text, flags=re.MULTILINE)
        return text


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Said, Said]]]:
    """What the real one and the stand-in said to each line of the script."""
    folder = tmp_path_factory.mktemp("recorder")
    tools = folder / "tools"
    tools.mkdir()
    stand_in_xl.installed(tools)
    (folder / "volume").write_bytes(bytes(4096))
    subprocess.run(["losetup", VOLUME, folder / "volume"], check=True)
    real = Side(None, GUESTS / "web.xen", folder / "real")
    stand_in = Side(tools, GUESTS / "stand-in.xen", folder / "stand-in")
    try:
        yield list(zip(real.play(), stand_in.play(), strict=True))
    finally:
        stand_in_xl.leave(tools)
        subprocess.run(["losetup", "--detach", VOLUME], check=True)


@pytest.mark.parametrize("place", range(len(SCRIPT)), ids=SCRIPT)
def test_the_stand_in_answers_as_xl_does(place: int, both: list[tuple[Said, Said]]) -> None:
    real, stand_in = both[place]
    assert stand_in == real
