"""A deployment repository whose guest is on a network, and a host with a namespace of its own."""

import json
import os
import pwd
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest

import stand_in_xl
from guests_built import Built, BuiltTarget
from imprint import Imprint
from mirage_hooks.boot.generation import Generation
from mirage_hooks.boot.xl import Xl
from namespace import Namespace
from support import COMMAND, USER, Site, leave, run

BRIDGE: dict[str, object] = {"bridge": "br0", "create": True, "address": "10.0.0.1/24"}


def on(*targets: BuiltTarget) -> pytest.MarkDecorator:
    """Have a test's fixture `net` once for each of these targets, named by who plays the tender."""
    named = [
        pytest.param(each, id=f"{each} (stand-in)" if each in {"spt", "hvt"} else each)
        for each in targets
    ]
    return pytest.mark.parametrize("net", named, indirect=True)


each_target = on("unix", "spt", "hvt", "virtio")


@dataclass(kw_only=True)
class NetSite(Site):
    """A clone whose host is a namespace; its guest `www` is on the network `public`, at 10.0.0.2.

    `device` are the lines of the guest's table for its network, `more` further tables. `become` is
    what makes somebody else of who runs a command.
    """

    host: Namespace
    built: Built
    target: BuiltTarget
    user: str | None = None
    device: str = 'address = "10.0.0.2/24"\ngateway = "10.0.0.1"'
    name: str = "service"
    memory: int = 32
    more: str = ""
    become: tuple[str, ...] = ()

    def manifest(self) -> str:
        """Return the manifest that the fields describe."""
        check = self.check or 'ping = true\nhttp = "http://10.0.0.2/"\nwithin = "5s"'
        return self.table("www", self.device, self.args, check) + self.more

    def table(self, guest: str, device: str, args: list[str], check: str) -> str:
        """Return the table of a guest, with the image of `www`."""
        return (
            f'[guest.{guest}]\ntarget = "{self.target}"\nimage = "www.{self.target}"\n'
            f"memory = {self.memory}\nargs = {json.dumps(args)}\n"
            f'[guest.{guest}.network.{self.name}]\nnetwork = "public"\n{device}\n'
            f"[guest.{guest}.check]\n{check}\n{self.tables}\n"
        )

    def put(self, image: bytes) -> None:
        """Put an image into the upstream's work tree, without a pointer."""
        (self.upstream / f"www.{self.target}").write_bytes(image)

    def install(self, *options: str) -> CompletedProcess[str]:
        """Install mirage-hooks into the clone, for a host with the network and the tenders."""
        user = ["--user", self.user] if self.user else []
        done = self.command("install", *user, *options)
        self.tell_of_tests()
        return done

    def tell_of_tests(self) -> None:
        """Put into the host file what is there for tests: the network and the tenders."""
        self.tell_host(
            limits={"targets": ["unix", "spt", "hvt", "virtio", "xen"]},
            networks={"public": BRIDGE},
            tenders={
                "spt": str(self.built.tender("spt")),
                "hvt": str(self.built.tender("hvt")),
                "xen": str(self.xen / "xl"),
                "kvm": False,
            },
        )

    @property
    def xen(self) -> Path:
        """The folder of the stand-in for xl, and of its domains."""
        return self.upstream.parent / "xen"

    def domains(self) -> dict[str, str]:
        """Return the state of each of the host's domains, by name."""
        return {one.name: one.state for one in Xl([str(self.xen / "xl")]).domains()}

    def bind(self, network: dict[str, object]) -> None:
        """Say in the host file what `public` is."""
        self.tell_host(networks={"public": network})

    def command(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """Run the command line in the clone, on its host."""
        return self.host.run(*self.become, COMMAND, *arguments, cwd=self.here, check=check)

    def git(self, *arguments: str, check: bool = True) -> CompletedProcess[str]:
        """Run git in the clone, on its host."""
        return self.host.run(*self.become, "git", *arguments, cwd=self.here, check=check)

    def page(self, address: str = "10.0.0.2", port: int = 80) -> str | None:
        """Return what the guest answers."""
        return self.host.get(address, port)

    def taps(self) -> list[str]:
        """Return the names of the host's taps."""
        return [name for name in self.host.links() if name.startswith("mh")]

    def link(self, name: str, file: str) -> str:
        """Return what /sys says of a link of the host's."""
        return self.host.run("cat", f"/sys/class/net/{name}/{file}").stdout.strip()

    def kill_converger(self) -> None:
        """Kill the converger that is at work, at once."""
        os.kill(json.loads(self.state.lock.read_bytes())["pid"], signal.SIGKILL)

    def mac(self, address: str = "10.0.0.2") -> str:
        """Return the MAC that the host knows a guest by."""
        assert self.host.pings(address)
        listed = json.loads(self.host.run("ip", "-json", "neigh", "show", address).stdout)
        return str(listed[0]["lladdr"])


def untouched(net: NetSite, code: int, *words: str) -> None:
    """Bring a commit in by a pull, then by hand: it is refused, and the guest is as it was."""
    before = identity(net)
    pull = net.pull()
    deploy = net.command("deploy", check=False)
    said = deploy.stdout + deploy.stderr
    assert deploy.returncode == code, said
    assert [word for word in words if word not in said or word not in pull.stderr] == [], said
    assert "Traceback" not in said + pull.stderr
    assert identity(net) == before
    assert net.page() == "one"
    assert len(net.taps()) <= 1


def identity(net: NetSite) -> tuple[Generation | None, int]:
    """Return the generation that runs, and its process."""
    tender = net.monitor().tender
    assert tender is not None
    return net.live(), tender.pid


def rolled_back(net: NetSite, *words: str) -> None:
    """Bring a commit in by a pull: it is tried, given up, and what ran before runs again."""
    pull = net.pull()
    assert [word for word in words if word not in pull.stderr] == [], pull.stderr
    assert "Traceback" not in pull.stderr
    assert net.outcomes() == ["ended", "failed", "healthy"]
    assert net.page() == "one"
    assert len(net.taps()) == 1
    assert net.command("deploy", check=False).returncode == 1


@contextmanager
def networked(
    folder: Path,
    host: Namespace,
    built: Built,
    target: BuiltTarget,
    operator: str | None = None,
    imprint: Imprint | None = None,
) -> Iterator[NetSite]:
    """Have a clone with a first image published, installed; nothing is deployed yet.

    Guests of root's run as `nobody`; those for hvt as root, where root alone may open /dev/kvm.
    An `operator` who is not root has everything in `folder`.
    """
    if (missing := missing_for(target)) is not None:
        pytest.skip(missing)
    site = NetSite(
        folder / "upstream",
        folder / "clone",
        80,
        partial(built.image, target),
        host=host,
        built=built,
        target=target,
        user="nobody" if operator is None and target != "hvt" else None,
    )
    site.xen.mkdir()
    stand_in_xl.installed(site.xen)
    run("git", "init", "-q", str(site.upstream), cwd=folder)
    site.publish("one")
    run("git", "clone", "-q", str(site.upstream), str(site.clone), cwd=folder)
    if operator is not None:
        site.become = as_operator(folder, operator)
    if imprint is not None and site.user == USER:
        imprint.put(site)
        site.tell_of_tests()
    else:
        site.install()
    yield site
    leave(site)
    stand_in_xl.leave(site.xen)


def as_operator(folder: Path, operator: str) -> tuple[str, ...]:
    """Give a folder to an operator, with a home in it; return what runs a command as them."""
    # Both root and the operator work in these repositories.
    home, runtime = folder / "operator", folder / "run"
    run("git", "config", "--global", "safe.directory", "*", cwd=folder)
    home.mkdir()
    shutil.copy(Path.home() / ".gitconfig", home)
    runtime.mkdir(mode=0o700)
    run("chown", "--recursive", operator, str(folder), cwd=folder)
    group = pwd.getpwnam(operator).pw_gid
    become = ("setpriv", f"--reuid={operator}", f"--regid={group}", "--clear-groups")
    own = (f"HOME={home}", f"XDG_CONFIG_HOME={home}/.config", f"XDG_RUNTIME_DIR={runtime}")
    return (*become, "env", *own)


def missing_for(target: BuiltTarget) -> str | None:
    """Return what this machine lacks to boot the tests' own guest for a target."""
    if target == "virtio" and shutil.which("qemu-system-x86_64") is None:
        return "QEMU is not installed: apt-get install qemu-system-x86"
    if target == "hvt" and not Path("/dev/kvm").exists():
        return "hvt takes /dev/kvm, which is not here"
    return None
