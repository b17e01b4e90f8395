"""A stand-in for Xen: domains that are processes, kept in a file of one folder.

`tests/stand_in_xl.py` is its command line. A domain's kernel is a program of this host that has a
note of Xen's (`guests_built`); it gets the words of `extra` as arguments and, where the domain has
a vif, a tap by the vif's name. A keeper, the parent of that process, does what xl's own process
does that stays behind: it sees to what happens when the guest ends.
"""

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

# The domain whose name, memory and store are the host's own.
HOST = 0
HOST_MEMORY = 1500
DEFAULT_MEMORY = 32
ALL_MEMORY = 4096

# Words of `extra` that are for the stand-in: the guest does what `xl shutdown` asks it to, as no
# MirageOS image for PV does.
OBEDIENT = "stand-in=obedient"

# What xl calls the reasons for which a domain has stopped (Xen's public/sched.h).
REASONS = {"poweroff": "0", "reboot": "1", "suspend": "2", "crash": "3"}

Value = str | int | list[str]


@dataclass
class Domain:
    """A domain, as `xl` knows it; `guest` is the process that stands for it, 0 where none does.

    It was `paused` so many times more than let go.
    """

    domid: int
    name: str
    uuid: str
    memory: int
    config: dict[str, Value]
    vifs: list[str] = field(default_factory=list)
    paused: int = 1
    reason: str | None = None
    obeying: bool = False
    guest: int = 0
    keeper: int = 0
    began: float = field(default_factory=time.monotonic)


@dataclass
class Xen:
    """All domains there are, the next one's number, and what is in xenstore."""

    domains: list[Domain] = field(default_factory=list)
    next: int = 1
    store: dict[str, str] = field(default_factory=dict)

    def find(self, wanted: str) -> Domain | None:
        """Return a domain by its number or name, as xl looks it up; None where there is none."""
        return self.numbered(wanted) or self.named(wanted)

    def named(self, name: str) -> Domain | None:
        """Return a domain by its name only."""
        return next((each for each in self.domains if each.name == name), None)

    def numbered(self, domid: str) -> Domain | None:
        """Return a domain by its number only."""
        return next((each for each in self.domains if str(each.domid) == domid), None)

    @property
    def free_memory(self) -> int:
        """What a new domain can have, in MiB."""
        return ALL_MEMORY - HOST_MEMORY - sum(each.memory for each in self.domains)

    def remove(self, domain: Domain) -> None:
        """Forget a domain, and what xenstore has of it."""
        self.domains.remove(domain)
        gone = (f"/local/domain/{domain.domid}/", f"/vm/{domain.uuid}/")
        self.store = {path: text for path, text in self.store.items() if not path.startswith(gone)}


@dataclass(frozen=True)
class Folder:
    """Where the domains are kept, and everything that belongs to them."""

    path: Path

    @contextmanager
    def changing(self) -> Iterator[Xen]:
        """Have the domains to oneself, and keep what was changed."""
        with (self.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            xen = self._read()
            try:
                yield xen
            finally:
                made = self.path / "domains.new"
                made.write_text(json.dumps(asdict(xen), indent=1))
                made.rename(self._file)

    def now(self) -> Xen:
        """Return the domains as they are."""
        # The file is always whole: it is replaced, not written over.
        return self._read()

    def console(self, domid: int) -> Path:
        """Return the file that a domain's console is in."""
        return self.path / f"console.{domid}"

    @property
    def _file(self) -> Path:
        return self.path / "domains.json"

    def _read(self) -> Xen:
        try:
            kept = json.loads(self._file.read_text())
        except FileNotFoundError:
            return Xen()
        return Xen(**{**kept, "domains": [Domain(**each) for each in kept["domains"]]})


def end(domain: Domain) -> None:
    """End whatever stands for a domain."""
    # 0 would be whoever is in our own process group; the keeper may be who does this.
    for pid in {domain.keeper, domain.guest} - {0, os.getpid()}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for vif in domain.vifs:
        subprocess.run(["ip", "link", "delete", vif], capture_output=True, check=False)


def _boot(folder: Folder, domain: Domain, *, concluding: bool) -> None:
    """Start what stands for a domain, stopped before its first instruction; note its pids."""
    for vif, bridge in zip(domain.vifs, bridges(domain.config), strict=True):
        _make_tap(vif, bridge)
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        # Whoever holds the lock's file holds the lock.
        os.closerange(3, tell)
        os.closerange(tell + 1, 256)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        guest = _stopped(folder, domain)
        os.write(tell, f"{os.getpid()} {guest}".encode())
        os.close(tell)
        _keep(folder, domain.domid, guest, concluding)
        os._exit(0)
    os.close(tell)
    domain.keeper, domain.guest = map(int, os.read(ready, 64).split())
    os.close(ready)


def resume(domain: Domain) -> None:
    """Let a domain go once; it runs where it was not paused twice."""
    domain.paused = max(domain.paused - 1, 0)
    if domain.guest and not domain.paused:
        os.kill(domain.guest, signal.SIGCONT)


def pause(domain: Domain) -> None:
    """Keep a domain from running."""
    domain.paused += 1
    if domain.guest:
        os.kill(domain.guest, signal.SIGSTOP)


def options(described: str) -> dict[str, str]:
    """Return what a vif's description says, as in `mac=02:..,bridge=xenbr0`."""
    words = (word.partition("=") for word in described.split(",") if word.strip())
    return {key.strip(): value.strip() for key, _, value in words}


def bridges(config: dict[str, Value]) -> list[str]:
    """Return the bridge of each vif."""
    return [options(vif).get("bridge", "xenbr0") for vif in texts(config.get("vif"))]


def texts(value: Value | None) -> list[str]:
    """Return the words of a list, none where that is not set."""
    return value if isinstance(value, list) else []


def _make_tap(name: str, bridge: str) -> None:
    for command in (
        ("ip", "tuntap", "add", name, "mode", "tap"),
        ("ip", "link", "set", name, "master", bridge),
        ("ip", "link", "set", name, "up"),
    ):
        subprocess.run(command, capture_output=True, check=True)


def _stopped(folder: Folder, domain: Domain) -> int:
    """Fork the guest; return its pid once it has stopped before its exec."""
    guest = os.fork()
    if guest == 0:
        console = os.open(folder.console(domain.domid), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(console, stream)
        os.kill(os.getpid(), signal.SIGSTOP)
        kernel = str(domain.config["kernel"])
        os.execv(kernel, [kernel, *_arguments(domain)])
    os.waitid(os.P_PID, guest, os.WSTOPPED | os.WNOWAIT)
    return guest


def _arguments(domain: Domain) -> list[str]:
    """Return what the guest is told: MirageOS's form, whatever form `extra` has."""
    words = [word for word in str(domain.config.get("extra", "")).split() if word != OBEDIENT]
    told = [word if word.startswith("-") else f"--{word}" for word in words]
    for vif, described in zip(domain.vifs, texts(domain.config.get("vif")), strict=True):
        mac = options(described).get("mac")
        told += [f"--interface={vif}", *([f"--mac={mac}"] if mac else [])]
    return told


def _keep(folder: Folder, domid: int, guest: int, concluding: bool) -> None:
    """Wait for the guest's end, and say so; conclude it where nobody else does."""
    _, status = os.waitpid(guest, 0)
    with folder.changing() as xen:
        domain = xen.numbered(str(domid))
        if domain is None:
            return
        domain.guest = 0
        # MirageOS's own code goes no further than its console: Xen is told of an end, or a crash.
        domain.reason = "poweroff" if os.WIFEXITED(status) or domain.obeying else "crash"
        if concluding:
            conclude(folder, xen, domain)


def conclude(folder: Folder, xen: Xen, domain: Domain) -> str:
    """Do what the configuration says of how a domain has stopped; return what that is."""
    action = str(domain.config.get(f"on_{domain.reason}", "destroy"))
    if action != "preserve":
        end(domain)
        xen.remove(domain)
    if action == "restart":
        made = Domain(xen.next, domain.name, domain.uuid, domain.memory, domain.config)
        xen.next += 1
        resume(create(folder, xen, made))
    return action


def _vif(domid: int, place: int, described: str) -> str:
    return options(described).get("vifname", f"vif{domid}.{place}")


def create(folder: Folder, xen: Xen, domain: Domain, *, concluding: bool = True) -> Domain:
    """Have a domain, paused; what it was asked for has been looked at.

    Its keeper concludes it where nobody else is there to: `xl create -F` is.
    """
    vifs = enumerate(texts(domain.config.get("vif")))
    domain.vifs = [_vif(domain.domid, *each) for each in vifs]
    _boot(folder, domain, concluding=concluding)
    xen.domains.append(domain)
    here, machine = f"/local/domain/{domain.domid}", f"/vm/{domain.uuid}"
    xen.store |= {
        f"{here}/control/shutdown": "",
        # What Linux writes there as it boots (drivers/xen/manage.c).
        f"{here}/control/feature-poweroff": "1" if _obeys(domain) else "",
        f"{here}/domid": str(domain.domid),
        f"{here}/name": domain.name,
        f"{here}/vm": machine,
        f"{machine}/image/cmdline": str(domain.config.get("extra", "")),
        f"{machine}/image/kernel": str(domain.config["kernel"]),
        f"{machine}/name": domain.name,
        f"{machine}/uuid": domain.uuid,
    }
    return domain


def _obeys(domain: Domain) -> bool:
    return OBEDIENT in str(domain.config.get("extra", "")).split()


def shut_down(domain: Domain) -> bool:
    """Ask a domain to end; return whether it does, as MirageOS on PV never does."""
    if not _obeys(domain):
        return False
    domain.obeying = True
    os.kill(domain.guest, signal.SIGKILL)
    return True
