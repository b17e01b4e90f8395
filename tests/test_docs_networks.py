"""docs/networks.md is true: its commands, run as they are written, say what it says they do."""

import os
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import tomlkit

import pages
from guests_built import Built, BuiltTarget
from mirage_hooks.boot import description, host
from namespace import Namespace
from pages import Block, Shell
from support import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "networks.md").read_text()

# Where the page clones from.
URL = "https://git.example.org/deployment.git"
NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    "dnsmasq": "dnsmasq-base",
    "curl": "curl",
    "ethtool": "ethtool",
    "ip": "iproute2",
}

# A host of the page's own, which what is started from here sees and nothing else does.
HOST = """
set -e
mount -t tmpfs tmpfs /run && mkdir /run/netns
mount -t tmpfs tmpfs /var/lib/misc
mount -t tmpfs -o mode=755 tmpfs /srv
mount -t tmpfs tmpfs /usr/local/sbin && cp {tender} /usr/local/sbin
mount -t tmpfs -o mode=755 tmpfs /opt && mkdir /opt/etc /opt/work
mount -t overlay -o lowerdir=/etc,upperdir=/opt/etc,workdir=/opt/work overlay /etc
grep -q ^mirage: /etc/passwd || echo mirage:x:64321:64321::/nonexistent:/bin/false >>/etc/passwd
exec bash --norc
"""


class Reader:
    """Who follows the page, on a host of their own; `folder` is theirs and CI's."""

    def __init__(self, namespace: Namespace, built: Built, folder: Path) -> None:
        self._built = built
        self._upstream = folder / "upstream"
        self._home = Path(os.environ["HOME"])
        run("git", "init", "-q", str(self._upstream), cwd=folder)
        run("git", "config", "--global", f"url.{self._upstream}.insteadOf", URL, cwd=folder)
        script = HOST.format(tender=built.tender("spt"))
        self._shell = Shell(namespace.inside("sh", "-c", script), self._home, folder / "output")

    def close(self) -> None:
        """Leave."""
        self._shell.close()

    def follow(self, block: Block) -> Iterator[tuple[str, list[str], list[str]]]:
        """Do what a block says; yield each command, what it should print, and what it printed."""
        if block.kind == "toml" and block.text.startswith(f"# {description.NAME}"):
            self._publish(block.text)
        elif block.kind == "toml" and block.text.startswith(f"# .git/mirage-hooks/{host.NAME}"):
            path = self._home / "deployment" / ".git" / "mirage-hooks" / host.NAME
            tables = tomllib.loads(path.read_text())
            for name, table in tomllib.loads(block.text).items():
                tables[name] = {**tables.get(name, {}), **table}
            path.write_text(tomlkit.dumps(tables))
        elif block.kind == "console":
            for command, expected in pages.commands(block.text):
                yield command, expected, self._shell.type(command)

    def _publish(self, text: str) -> None:
        """Be CI: commit a manifest, and the image that it asks for."""
        guest = tomllib.loads(text)["guest"]["www"]
        dhcp = any(network.get("dhcp") for network in guest["network"].values())
        devices = dict.fromkeys(guest["network"], "NET_BASIC")
        devices |= dict.fromkeys(guest.get("block", {}), "BLOCK_BASIC")
        target = cast("BuiltTarget", guest["target"])
        image = self._built.image(target, f"Hello from {target}", devices=devices, dhcp=dhcp)
        path = self._upstream / guest["image"].format(latest=f"{len(text):07x}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.read_bytes())
        (path.parents[1] / "latest").write_text(f"{path.parent.name}\n")
        (self._upstream / description.NAME).write_text(text)
        run("git", "add", "-A", cwd=self._upstream)
        run("git", "commit", "-q", "-m", f"adding {path.parent.name}", cwd=self._upstream)


@pytest.fixture
def reader(namespace: Namespace, built: Built, tmp_path: Path) -> Iterator[Reader]:
    """Who reads the page on a host that has what it needs."""
    for program, package in NEEDED.items():
        if shutil.which(program) is None:
            pytest.skip(f"the page needs {program}: apt-get install {package}")
    # The shell stands in the namespace, and ends with it where the test fails.
    made = Reader(namespace, built, tmp_path)
    yield made
    made.close()


def test_every_command_of_the_page_prints_what_the_page_says(reader: Reader) -> None:
    for block in pages.blocks(PAGE):
        for command, expected, said in reader.follow(block):
            assert pages.agrees(expected, said), (
                f"docs/networks.md, block at line {block.line}:\n$ {command}\n" + "\n".join(said)
            )


def test_every_message_of_the_page_is_one_of_ours() -> None:
    """Also those of the table, whose causes no command of the page brings about."""
    assert pages.strange(PAGE) == []
