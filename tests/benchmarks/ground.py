"""Where guests on taps are measured: a namespace with a bridge, and a clone that deploys one there.

The bridge has a port that is always up, as a host's has its card: without one it would be without
carrier between two guests. The host, which pings the guest, knows its MAC beforehand, as a router
does that has spoken to it: an entry that stays. A unix guest has a new MAC at each boot, which only
its announcement tells.
"""

import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from bare import BareGuest
from stage import START_MS, Stage

import real_tenders
from guests_built import Built, BuiltTarget
from mirage_hooks.boot import control
from namespace import Namespace, missing_for_namespaces

ADDRESS = "10.0.0.2"
_BRIDGE, _BARE_TAP = "br0", "bare0"
# See arp(7). The host takes an announcement however soon after the last one; where one is lost, it
# asks again after seconds, not after a minute; and it does not keep a hundred packets meanwhile,
# which would be a load of their own.
_NEIGHBOURS = (
    "locktime=0",
    "base_reachable_time_ms=1000",
    "delay_first_probe_time=1",
    "retrans_time_ms=100",
    "unres_qlen=1",
)
_KVM = Path("/dev/kvm")


@dataclass(frozen=True)
class Subject:
    """What is booted: an image for a target, by which tender, in words, and the guest's tables."""

    target: BuiltTarget
    words: str
    image: Path
    tender: Path | None
    tables: str


@dataclass(kw_only=True)
class Ground(Stage):
    """A stage in a namespace, whose guest `www` is on a tap, and stopped at first."""

    namespace: Namespace
    subject: Subject

    def run(self, *command: str | Path, cwd: Path) -> str:
        """Run a command in the namespace."""
        return super().run(*self.namespace.inside(*command), cwd=cwd)

    def set_up(self) -> None:
        """Make the network and the clone, and boot the guest once."""
        self.namespace.bridge(_BRIDGE, "10.0.0.1/24")
        network = self.namespace.run
        network("ip", "link", "add", "card0", "type", "veth", "peer", "name", "card1")
        network("ip", "link", "set", "card1", "up")
        network("ip", "link", "set", "card0", "master", _BRIDGE, "up")
        for setting in _NEIGHBOURS:
            network("sysctl", "-qw", f"net.ipv4.neigh.{_BRIDGE}.{setting}")
        self.upstream.mkdir(parents=True)
        self.run("git", "init", "-q", cwd=self.upstream)
        target = self.subject.target
        shutil.copy(self.subject.image, self.upstream / f"www.{target}")
        (self.upstream / "mirage-hooks.toml").write_text(
            f'[guest.www]\ntarget = "{target}"\nimage = "www.{target}"\n{self.subject.tables}'
            '[guest.www.check]\nping = true\nwithin = "20s"\n'
        )
        self.commit("a guest on a tap")
        self.clone("ours")
        self.install()
        self._tell_host()
        self.mirage_hooks("deploy")
        self.mirage_hooks("stop", "www")

    def install(self) -> None:
        """Install mirage-hooks; only what is native code has a user of its own."""
        user = ["--user", "nobody"] if self.subject.target == "unix" else []
        self.mirage_hooks("install", *user)

    def _tell_host(self) -> None:
        target, tender = self.subject.target, self.subject.tender
        told = {
            "limits": {"targets": [target]},
            "networks": {"public": {"bridge": _BRIDGE}},
            "tenders": {target: str(tender)} if tender is not None else {},
        }
        path = self.state.host_file
        path.write_text(tomlkit.dumps({**tomllib.loads(path.read_text()), **told}))

    def bare_command(self) -> tuple[str, list[str]]:
        """Return the program and the argument list that our guest had, with the other tap.

        Nobody opens a bare one's files for it: they are named by their paths.
        """
        newest = self.state.generations("www")[-1]
        folder = self.state.generation_folder("www", newest.number)
        orders = control.read_orders(str(folder))
        (tap,) = orders.taps
        words = [word.replace(tap, _BARE_TAP) for word in orders.argv]
        for number, path in enumerate(orders.files):
            words = [word.replace(control.descriptor(number), path) for word in words]
        return orders.executable, words

    def introduce(self) -> None:
        """Have the host know where the guest is to be, as far as that can be known."""
        known = (ADDRESS, "dev", _BRIDGE)
        (nic,) = self.state.generations("www")[-1].boot.nics.values()
        if nic.mac is not None:
            self.namespace.run(
                "ip", "neigh", "replace", *known, "lladdr", nic.mac, "nud", "permanent"
            )
        else:
            self.namespace.run("ip", "neigh", "delete", *known, check=False)

    @contextmanager
    def bare_tap(self) -> Iterator[None]:
        """Have a tap for a bare guest, made just now, as ours is: its port of the bridge is up.

        That goes down within a second while nobody has the tap open, and loses what a guest says
        at first: the kernel sets it up again behind the guest's back.
        """
        self.namespace.tap(_BARE_TAP, _BRIDGE)
        try:
            yield
        finally:
            self.namespace.run("ip", "link", "delete", _BARE_TAP)


@contextmanager
def ground(stage: Stage, subject: Subject) -> Iterator[tuple[Ground, BareGuest]]:
    """Set up a ground, and a bare guest that is stopped at the end; both are to be started."""
    namespace = Namespace()
    made = Ground(
        folder=stage.folder / subject.words.replace(" ", "-"),
        environment=stage.environment,
        namespace=namespace,
        subject=subject,
    )
    bare = BareGuest(stage.folder / "bare-on-tap.log")
    try:
        made.set_up()
        yield made, bare
    finally:
        bare.stop()
        made.clear_away()
        namespace.end()


def subjects(stage: Stage) -> Iterator[Subject]:
    """Yield what this machine can run, and print why it cannot run the rest."""
    missing = missing_for_namespaces()
    if missing is not None:
        print(f"no guests on taps: {missing}")
        return
    built = Built(stage.folder)
    static = f'[guest.www.network.service]\nnetwork = "public"\naddress = "{ADDRESS}/24"\n'
    delayed = f'args = ["--delay={START_MS}"]\n{static}'
    yield Subject("unix", "unix stand-in", built.image("unix"), None, delayed)
    for target in ("spt", "hvt"):
        if target == "hvt" and not _KVM.exists():
            print(f"no hvt: {_KVM} is missing")
            continue
        yield Subject(
            target, f"{target} stand-in", built.image(target), built.tender(target), delayed
        )
        if (real := _real(target, stage.folder)) is not None:
            yield real
    if shutil.which("qemu-system-x86_64") is None:
        print("no virtio: QEMU is missing: apt-get install qemu-system-x86")
        return
    yield Subject("virtio", "virtio", built.image("virtio"), None, static)


def _real(target: BuiltTarget, folder: Path) -> Subject | None:
    """Return Solo5's own tender and its test_net, which answers pings there and nothing else.

    test_net has no start of its own: it gets START_MS too, as the stand-ins do, before its tender.
    """
    tender = shutil.which(f"solo5-{target}")
    image = Path(os.environ.get(real_tenders.VARIABLE, "/nonexistent"), f"test_net.{target}")
    if tender is None or not image.exists():
        print(f"no real solo5-{target}: it takes one on PATH, and {real_tenders.VARIABLE}")
        return None
    slow = folder / f"slow-{target}"
    slow.write_text(f'#!/bin/sh\nsleep {START_MS / 1000}\nexec {tender} "$@"\n')
    slow.chmod(0o755)
    baked = '[guest.www.network.service0]\nnetwork = "public"\nbaked = true\n'
    return Subject(target, f"{target} solo5-{target}", image, slow, baked)
