"""What to do about each guest: pure, from what is desired, recorded, alive and intended."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from mirage_hooks.boot.artifact import Missing, Provenance, difference
from mirage_hooks.boot.control import MonitorState
from mirage_hooks.boot.desired import Desired, DesiredState
from mirage_hooks.boot.errors import ConfigError, Error
from mirage_hooks.boot.faults import Fault
from mirage_hooks.boot.generation import Generation, Phase
from mirage_hooks.boot.guest import Boot, Check, Restart, short
from mirage_hooks.boot.intent import HELD, Intent

_RETRY = "`mirage-hooks deploy` tries it again"


class Verb(StrEnum):
    """What is done about a guest."""

    KEEP = "keep"
    START = "start"
    REPLACE = "replace"
    ROLL_BACK = "roll back"
    STOP = "stop"
    SKIP = "skip"


@dataclass(frozen=True)
class Launch:
    """A state to be booted, and how it is to be looked after."""

    boot: Boot
    provenance: Provenance
    check: Check
    restart: Restart

    @classmethod
    def of(cls, source: "Desired | Generation") -> "Launch":
        """Return what to boot for a desired state, or to boot a generation again."""
        if isinstance(source, Generation):
            return cls(source.boot, source.provenance, source.check, source.restart)
        return cls(source.boot, source.provenance, source.guest.check, source.guest.restart)


@dataclass(frozen=True)
class Action:
    """One guest, what is done about it, and why. `problem` says what is not as it should be.

    `postponed` says that it could not be prepared of late, and that its time has not come again.
    """

    verb: Verb
    guest: str
    reason: str
    launch: Launch | None = None
    problem: Error | None = None
    postponed: bool = False

    @property
    def boots(self) -> bool:
        """Whether a new generation is booted."""
        return self.verb in {Verb.START, Verb.REPLACE, Verb.ROLL_BACK}

    def __str__(self) -> str:
        return f"{self.guest}: {self.verb}: {self.reason}"


@dataclass(frozen=True)
class Known:
    """What is recorded and really alive of one guest.

    `live` is the generation whose guest runs, or is about to be restarted by its `monitor`.
    `given_up` says how the guest of the current generation ended for good, by its restart policy,
    where it did; `ended_well` whether that was its own success. `fault` is what last kept it from
    being prepared.
    """

    generations: tuple[Generation, ...] = ()
    live: Generation | None = None
    monitor: MonitorState | None = None
    given_up: str | None = None
    ended_well: bool = False
    intent: Intent | None = None
    fault: Fault | None = None

    def verdict(self, digest: str) -> Generation | None:
        """Return the newest generation of a boot digest that was found healthy or failed."""
        return next(
            (
                generation
                for generation in reversed(self.generations)
                if generation.digest == digest
                and (generation.healthy_at is not None or generation.phase is Phase.FAILED)
            ),
            None,
        )

    def failed(self, digest: str) -> Generation | None:
        """Return the generation that put the failed mark on a boot digest, None without a mark."""
        newest = self.verdict(digest)
        return newest if newest is not None and newest.phase is Phase.FAILED else None

    def last_healthy(self, other_than: str) -> Generation | None:
        """Return the last healthy generation whose boot digest differs from `other_than`."""
        return next(
            (
                generation
                for generation in reversed(self.generations)
                if generation.healthy_at is not None and generation.digest != other_than
            ),
            None,
        )

    @property
    def adrift(self) -> bool:
        """Whether nothing but the loss of its monitor has ended it: a domain of it may serve on."""
        held = self.intent is not None and self.intent.kind == "held"
        return self.live is None and self.given_up is None and not held

    @property
    def last(self) -> Generation | None:
        """The newest generation that was healthy."""
        return self.last_healthy("")

    def numbered(self, number: int) -> Generation | None:
        """Return a generation by its number."""
        return next((one for one in self.generations if one.number == number), None)


@dataclass(frozen=True)
class Wish:
    """What the operator asked for beside what the repository says.

    `reboot` names guests to boot again as they are, and nothing else is done then; `retry` tries
    what failed or was given up, of `retry_only` alone where that names guests. `now` is the time,
    in seconds since the epoch, and `host` the digest of the host file, where nobody asked by hand:
    what could not be prepared waits then for its own time.
    """

    reboot: frozenset[str] = field(default_factory=frozenset)
    retry: bool = False
    retry_only: frozenset[str] = field(default_factory=frozenset)
    allow_empty: bool = False
    now: float | None = None
    host: str = ""


def as_before(
    known: Mapping[str, Known], revision: str, why: Error, startup: Mapping[str, int]
) -> DesiredState:
    """Return a desired state in which each guest stays, or gets back, what it ran last.

    `why` says why nothing of what the repository asks for is booted. A guest that was stopped as no
    longer wanted has ended with its newest generation: it stays away.
    """
    ran = (
        name
        for name, one in known.items()
        if one.last is not None
        and (one.generations[-1].phase is not Phase.ENDED or one.generations[-1].lost)
    )
    return DesiredState(revision, unready=dict.fromkeys(ran, why), startup=startup)


def plan(desired: DesiredState, known: Mapping[str, Known], wish: Wish) -> list[Action]:
    """Return what to do, a guest each. Raises ConfigError where everything would be stopped."""
    running = sorted(name for name, one in known.items() if one.live is not None)
    if desired.lost and running and not wish.allow_empty:
        raise ConfigError(
            f"no guest is described at {short(desired.revision)}, while {', '.join(running)} "
            f"{'run' if len(running) > 1 else 'runs'}: nothing is changed",
            "a lost mirage-hooks.toml, or the wrong branch? If it is meant: "
            "mirage-hooks deploy --allow-empty",
        )
    names = sorted(desired.names | set(known))
    return [
        _postpone(
            decide(
                name,
                desired.guests.get(name),
                desired.unready.get(name),
                known.get(name, Known()),
                replace(wish, retry=wish.retry and name in (wish.retry_only or {name})),
                unselected=name in desired.unselected,
            ),
            known.get(name, Known()),
            wish,
        )
        for name in names
        if name in desired.names or known[name].live is not None
        if not wish.reboot or name in wish.reboot
    ]


def _postpone(action: Action, known: Known, wish: Wish) -> Action:
    """Leave alone what could not be prepared a while ago: what lives goes on living."""
    fault, launch = known.fault, action.launch
    if fault is None or wish.now is None or launch is None or not action.boots:
        return action
    if not fault.postpones(launch.boot.digest, wish.host, wish.now):
        return action
    verb = Verb.KEEP if known.live is not None else Verb.SKIP
    why = fault.message.removeprefix(f"{action.guest}: ")
    reason = f"it could not be prepared: {why}; {fault.when}"
    return Action(verb, action.guest, reason, problem=fault.error, postponed=True)


def decide(
    name: str,
    desired: Desired | None,
    unready: Error | None,
    known: Known,
    wish: Wish,
    unselected: bool = False,
) -> Action:
    """Return what to do about one guest; `unselected` says that the host does not choose it."""
    intent = known.intent
    if intent is not None and intent.kind == "held":
        if known.live is not None:
            return Action(Verb.STOP, name, HELD)
        return Action(Verb.SKIP, name, f"{HELD}: `mirage-hooks start {name}` ends that")
    if name in wish.reboot and (current := known.live or known.last) is not None:
        return _reboot(name, known, current, desired)
    if desired is None and unready is None:
        why = "not among this host's guests" if unselected else "no longer in the manifest"
        return Action(Verb.STOP, name, why)
    if intent is not None and pin_holds(intent, desired):
        return _toward_pin(name, known, intent, wish)
    if desired is None:
        assert unready is not None  # noqa: S101 - one of the two was given
        return _without_image(name, known, unready, wish)
    failed = known.failed(desired.boot.digest)
    if failed is not None and not wish.retry:
        return _after_failure(name, known, desired, failed, wish)
    return _toward(name, known, Launch.of(desired), desired.guest.image, wish)


def pin_holds(intent: Intent, desired: Desired | None) -> bool:
    """Whether a pin still holds: until the desired boot digest changes."""
    return intent.kind == "pinned" and (desired is None or desired.boot.digest == intent.desired)


def _toward_pin(name: str, known: Known, intent: Intent, wish: Wish) -> Action:
    pinned = known.numbered(intent.generation or 0)
    if pinned is None:
        return Action(Verb.SKIP, name, f"pinned to generation {intent.generation}, which is gone")
    return _toward(
        name,
        known,
        Launch.of(pinned),
        pinned.provenance.path,
        wish,
        f"pinned to generation {pinned.number} (`mirage-hooks start {name}` ends that)",
    )


def _without_image(name: str, known: Known, unready: Error, wish: Wish) -> Action:
    """The desired image cannot serve: what runs goes on running, what ran is kept up."""
    problem = None if isinstance(unready, Missing) else unready
    if known.last is None:
        return Action(Verb.SKIP, name, unready.message, problem=problem)
    if known.live is not None and known.live.phase is not Phase.FAILED:
        reason = f"{unready.message}; generation {known.live.number} goes on running"
        return Action(Verb.KEEP, name, reason, problem=problem)
    action = _toward(name, known, Launch.of(known.last), known.last.provenance.path, wish)
    reason = f"{unready.message}; {action.reason}"
    return Action(action.verb, name, reason, action.launch, problem or action.problem)


def _after_failure(
    name: str, known: Known, desired: Desired, failed: Generation, wish: Wish
) -> Action:
    """The desired state failed before: the last healthy one has its place meanwhile."""
    what = f"{short(desired.boot.image)} failed as generation {failed.number}: {failed.reason}"
    healthy = known.last_healthy(other_than=desired.boot.digest)
    if healthy is None:
        verb = Verb.SKIP if known.live is None else Verb.KEEP
        what = f"{what}; there is nothing healthy to go back to"
        return Action(verb, name, what, problem=Error(f"{name}: {what}", _RETRY))
    action = _toward(name, known, Launch.of(healthy), healthy.provenance.path, wish)
    back = f"back to {short(healthy.boot.image)} of generation {healthy.number}"
    problem = Error(f"{name}: {what}; {back}", _RETRY)
    if action.verb is Verb.KEEP:
        return Action(Verb.KEEP, name, f"{what}; {back} meanwhile", action.launch, problem)
    if not action.boots:
        reason = f"{what}; {back}: {action.reason}"
        return Action(action.verb, name, reason, problem=Error(f"{name}: {reason}", _RETRY))
    return Action(Verb.ROLL_BACK, name, f"{what}; {back}", action.launch, problem)


def _reboot(name: str, known: Known, current: Generation, desired: Desired | None) -> Action:
    """The current state once more, whatever the repository asks for by now."""
    launch = Launch.of(current)
    if desired is not None and desired.boot.digest == current.digest:
        launch = replace(launch, check=desired.guest.check, restart=desired.guest.restart)
    verb = Verb.START if known.live is None else Verb.REPLACE
    return Action(verb, name, f"reboot by hand; {_image(launch, launch.provenance.path)}", launch)


def _image(launch: Launch, path: str) -> str:
    return f"image {path} {short(launch.boot.image)} ({launch.provenance.describe()})"


def _toward(
    name: str, known: Known, launch: Launch, template: str, wish: Wish, why: str = ""
) -> Action:
    """The way from what is alive to a state that is to run."""
    path = template.replace("{latest}", "…")
    image = _image(launch, path)
    prefix = f"{why}: " if why else ""
    live = known.live
    if live is None:
        if not known.generations:
            return Action(Verb.START, name, f"{prefix}first boot of {image}", launch)
        the_same = known.last is not None and known.last.digest == launch.boot.digest
        if the_same and known.given_up is not None and not wish.retry:
            reason = f"{prefix}{known.given_up}; `mirage-hooks reboot {name}` boots it again"
            problem = None if known.ended_well else Error(f"{name}: {known.given_up}")
            return Action(Verb.SKIP, name, reason, problem=problem)
        return Action(Verb.START, name, f"{prefix}it is not running; {image}", launch)
    if live.digest != launch.boot.digest:
        words = difference(live.boot, launch.boot, path, launch.provenance.describe())
        return Action(Verb.REPLACE, name, prefix + words, launch)
    if live.phase is Phase.FAILED and wish.retry:
        return Action(
            Verb.REPLACE, name, f"{prefix}tried again after {live.reason}; {image}", launch
        )
    reason = f"{prefix}it runs {short(live.boot.image)} as generation {live.number}"
    return Action(Verb.KEEP, name, reason, launch)
