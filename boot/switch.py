"""One generation's way: armed, fired in place of what ran before, judged.

Every step is recorded before it is taken. `Switch.fire` hands the old generation to the new
monitor, which ends it and boots its own guest, whether this process lives on or not.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec

from mirage_hooks.boot import (
    console,
    control,
    domains,
    elf,
    network,
    runtime,
    scope,
    secrets,
    targets,
    wiring,
    xl,
)
from mirage_hooks.boot.control import Conversation, MonitorState, Orders
from mirage_hooks.boot.errors import Error, HostError
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.guest import Boot, short
from mirage_hooks.boot.health import Verdict
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.journal import Journal
from mirage_hooks.boot.judge import judge
from mirage_hooks.boot.plan import Launch
from mirage_hooks.boot.record import State
from mirage_hooks.boot.secrets import Vault
from mirage_hooks.boot.store import Store
from mirage_hooks.boot.succession import Predecessor
from mirage_hooks.boot.survey import how_lost
from mirage_hooks.boot.targets import mirage
from mirage_hooks.boot.targets.tenders import PATH
from mirage_hooks.boot.targets.tending import NO_OTHERS, Start
from mirage_hooks.boot.watch import Watch
from mirage_hooks.boot.wiring import Held, Wiring

# How long a monitor may take to stand armed, seconds: Python's start on a busy machine, and then
# what `xl create` may take.
_ARM_SECONDS = 90.0
_MONITOR = (sys.executable, "-I", "-m", "mirage_hooks.boot.monitor")
_CONSOLE_BYTES = 2 * 1024 * 1024
_CONSOLE_LINES = 10
# Where a domain's configuration is written.
_DOMAIN = "domain.cfg"


class Switch:
    """A new generation of one guest, from its record to its verdict."""

    def __init__(
        self,
        common_dir: Path,
        state: State,
        store: Store,
        journal: Journal,
        bound: Host,
        adopt: Container[str] = (),
    ) -> None:
        """Prepare for one; `adopt` are domains that it may take the place of, ours or not."""
        self._common_dir = common_dir
        self._bound = bound
        self._adopt = adopt
        self._state = state
        self._store = store
        self._journal = journal
        self._monitor: Conversation | None = None
        self._watch: Watch | None = None
        self.generation: Generation

    def arm(self, guest: str, launch: Launch, origin: str, held: Held) -> None:
        """Record a new generation and bring its monitor to stand armed. Raises Error."""
        image, boot = self._store.verify(launch.boot.image), launch.boot
        for disk in boot.disks:
            self._store.verify(disk)
        hidden = Vault(self._state.secrets).read(boot.secrets) if boot.secrets is not None else ()
        self.generation = self._state.save(
            Generation(
                guest=guest,
                number=self._state.next_number(guest),
                boot=launch.boot,
                provenance=launch.provenance,
                check=launch.check,
                restart=launch.restart,
                origin=origin,
                converge=self._journal.converge,
                created=time.time(),
                phase=Phase.PREPARING,
            )
        )
        self._journal.event(
            "guest.preparing",
            f"{guest}: generation {self.generation.number}: preparing {short(launch.boot.image)}",
            **self._names(),
        )
        try:
            wires = self._start_monitor(image, hidden, held)
        except Error as error:
            self.abandon(error.message)
            raise
        if self._watch is not None:
            self._watch.open()
        self._become(Phase.ARMED)
        self._log_network(wires)

    def _log_network(self, wires: Wiring) -> None:
        launch = self.generation
        for record in network.configured(launch.boot, wires.taps):
            self._journal.event(
                "network.configured",
                f"{launch.guest}: network: {record.describe()}; commit "
                f"{short(launch.provenance.commit)}, image {short(launch.boot.image)}",
                target=launch.boot.target,
                commit=launch.provenance.commit,
                image=launch.boot.image,
                **self._names(),
                network={name: getattr(record, name) for name in record.__struct_fields__},
            )

    def fire(self, replaced: Sequence[Predecessor]) -> None:
        """Boot the guest, once the generations it replaces have ended. Raises HostError.

        One of another guest may be among them, that has this one's port and is replaced, too.
        """
        assert self._monitor is not None  # noqa: S101 - armed before
        self._become(Phase.FIRED)
        number = self.generation.number
        own = [one for one in replaced if one.generation.guest == self.generation.guest]
        instead = " and ".join(str(one.generation.number) for one in own)
        self._journal.event(
            "guest.fired",
            f"{self.generation.guest}: generation {number} boots"
            + (f" in place of generation {instead}" if instead else ""),
            **self._names(),
        )
        replaced_by = f"replaced by generation {number}"
        ended = [
            one.generation.end(replaced_by if one.monitor.monitor.alive else how_lost(one.monitor))
            for one in own
        ]
        try:
            after = [
                {**control.state_to(one.monitor), "make_way": one.make_way} for one in replaced
            ]
            self._monitor.send({"do": "fire", "after": after})
            limit = fire_seconds(self.generation.boot)
            limit += sum(one.monitor.grace for one in replaced)
            while (phase := self._monitor.receive(limit)["phase"]) == "switching":
                if self._watch is not None:
                    self._watch.open()
            if phase == "disarmed":
                raise ChildProcessError("its armed tender was killed")
        except (OSError, ValueError) as error:
            self._let_go()
            raise HostError(
                f"{self.generation.guest}: the monitor of generation {number} failed: {error}",
                f"its log: {self._folder / 'monitor.log'}",
            ) from None
        for old in ended:
            self._state.save(old)

    def judge(self) -> Verdict:
        """Try the check; record and log the verdict; leave the guest to its monitor."""
        try:
            assert self._watch is not None  # noqa: S101 - armed before
            verdict, self.generation = judge(
                self._state, self._journal, self.generation, self._watch
            )
            return verdict
        finally:
            self._let_go()

    def abandon(self, reason: str) -> None:
        """Give a generation up that was not fired: its monitor disarms when it is let go."""
        self._let_go()
        self._become(Phase.ABANDONED, reason=reason, ended_at=time.time())

    def _let_go(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._watch is not None:
            self._watch.close()

    def _become(self, phase: Phase, **changes: object) -> None:
        self.generation = self._state.save(self.generation.become(phase, **changes))

    @property
    def _folder(self) -> Path:
        return self._state.generation_folder(self.generation.guest, self.generation.number)

    def _names(self) -> dict[str, object]:
        return {"guest": self.generation.guest, "generation": self.generation.number}

    def _start_monitor(self, image: Path, hidden: tuple[str, ...], held: Held) -> Wiring:
        """Have everything ready, and the monitor stand armed with it; return the devices."""
        generation, boot = self.generation, self.generation.boot
        target, inspected = targets.named(boot.target), elf.inspect(image)
        target.fit(boot, inspected)
        tending = target.tending(self._bound.tenders, boot.user, inspected)
        if tending.notice:
            self._journal.event(
                "guest.tender", f"{generation.guest}: {tending.notice}", **self._names()
            )
        wires = wiring.attach(self._state, generation, target.writes_all, held)
        self._watch = Watch(boot, wires.taps)
        if generation.check.ping and self._watch.blind and not target.outside:
            raise HostError(
                "check ping: no right to ask the guest on its tap",
                "run this as root, or give the guest another check",
            )
        files = [str(image), *wires.volumes.values()]
        if not tending.path or target.outside:
            files = []
        reached = {path: control.descriptor(number) for number, path in enumerate(files)}
        start = Start(
            generation.guest,
            reached.get(str(image), str(image)),
            tending,
            inspected.devices,
            wires.taps,
            {device: reached.get(path, path) for device, path in wires.volumes.items()},
            generation.number,
            wiring.alias(self._state, generation),
            str(self._folder / _DOMAIN),
            domains.before(self._state, self._bound, generation, self._adopt)
            if target.outside
            else NO_OTHERS,
        )
        if boot.domain.arguments == "bare":
            hidden = mirage.bare(hidden)
        redact = secrets.words(_forms(hidden) - _forms(boot.arguments))
        whole = msgspec.structs.replace(boot, arguments=(*boot.arguments, *hidden))
        executable, argv = target.command(whole, start)
        orders = Orders(
            guest=generation.guest,
            generation=generation.number,
            converge=generation.converge,
            executable=executable,
            argv=argv,
            redact=redact,
            environment={"PATH": PATH, "LANG": "C.UTF-8"},
            files=files,
            taps=list(wires.taps.values()),
            user=boot.user if os.geteuid() == 0 else None,
            socket=runtime.socket_path(self._common_dir, generation.guest, generation.number),
            restart=generation.restart.policy(),
            console_bytes=_CONSOLE_BYTES,
            events=str(self._state.events),
            settled=str(self._state.settled),
            record=msgspec.to_builtins(generation),
            prepares=target.outside,
            grace=target.grace,
        )
        ours, theirs = socket.socketpair()
        log = self._folder / "monitor.log"
        try:
            control.write_json(str(self._folder / control.ORDERS), asdict(orders))
            with log.open("ab") as output, theirs:
                scoped = scope.run(
                    f"mirage-hooks-{self._state.installation}-{generation.guest}"
                    f"-{generation.number}.scope",
                    [*_MONITOR, str(self._folder), str(theirs.fileno())],
                    keep=theirs.fileno(),
                    output=output,
                    environment={"PATH": PATH, "LANG": "C.UTF-8"},
                    seconds=_ARM_SECONDS,
                )
            self._monitor = Conversation(ours)
            if self._monitor.receive(_ARM_SECONDS)["phase"] == "disarmed":
                said = console.said(str(self._folder / control.CONSOLE), _CONSOLE_LINES)
                raise HostError(f"{generation.guest}: {said[-1] if said else 'its tender ended'}")
            if not scoped:
                self._journal.event(
                    "guest.scope",
                    f"{generation.guest}: systemd has no scope for its monitor: it may end with "
                    f"what this is run from{_first_line(log)}",
                    **self._names(),
                )
            return wires
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            ours.close()
            raise HostError(
                f"{generation.guest}: the monitor of generation {generation.number} does not stand "
                f"armed: {error}",
                f"its log: {log}{_last_line(log)}",
            ) from None


def fire_seconds(boot: Boot) -> float:
    """Return how long it may take from the word to the boot, beside the old guest's grace, seconds.

    That is two kills; and for a domain that was not made before, the end of the one that it comes
    after, what Xen takes to have memory back, and `xl create`.
    """
    outside = targets.named(boot.target).outside
    return 4 * control.GRACE + (2 * xl.CHANGE_SECONDS + xl.ROOM_SECONDS if outside else 0.0)


def end(state: State, live: Generation, monitor: MonitorState | None, reason: str) -> None:
    """Record that a generation that lives has ended, and stop it."""
    state.save(live.end(reason))
    if monitor is not None:
        control.stop(monitor)


def _forms(arguments: tuple[str, ...]) -> set[str]:
    """Return arguments as they are, and as a command line has them."""
    return {*arguments, *map(mirage.quote, arguments)}


def _last_line(log: Path) -> str:
    return _a_line(reversed(_lines(log)))


def _first_line(log: Path) -> str:
    return _a_line(_lines(log))


def _lines(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").split("\n")
    except OSError:
        return []


def _a_line(lines: Iterable[str]) -> str:
    found = next((line for line in lines if line.strip()), "")
    return f" ({found})" if found else ""
