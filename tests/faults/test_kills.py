"""Whoever is killed, at whatever step that is recorded: the next converge makes it good.

A dry run says which steps there are, so that a new one is covered by itself. `make test` has a
sample of cases and steps, always the same; `make test-faults` has all of them. What is recorded is
the same for every target: all steps of every scenario are struck with the target that boots
quickest, with the other all those of a deploy, which has its devices and its tender.
"""

import re
from collections.abc import Callable, Iterator

import pytest
from _pytest.mark import ParameterSet

from faulty import FULL, QUICK, Faulty, Report, wrong_with
from networked import NetSite
from support import make_bare, run

PAGES = ("one", "two")
VICTIMS = ("converger", "monitor", "tender", "all")
TARGETS = ("unix", "virtio")
# Steps that a sample strikes at, in each of its cases.
SAMPLE = 6


class Scenario:
    """Something that is done over and over, the next one where the last one was made good."""

    exit_code = 0
    check = QUICK

    def __init__(self, faulty: Faulty, net: NetSite) -> None:
        self.faulty = faulty
        self.net = net
        net.check = self.check
        self.commits = [net.publish(page) for page in PAGES]
        self.install()

    def install(self) -> None:
        """Have the commits in the clone, and the first image running."""
        self.net.git("fetch", "-q")
        self.faulty.point(self.commits[0])
        assert self.faulty.converge() == 0

    def act(self, turn: int) -> None:
        """Do what may be struck."""
        raise NotImplementedError

    def make_good(self) -> int:
        """Have the converge after; return its exit code."""
        return self.faulty.converge(retry=True)

    def page(self, turn: int) -> str:
        """Return what is to be answered then."""
        return PAGES[turn % 2]


class Deploy(Scenario):
    """A new image."""

    def act(self, turn: int) -> None:
        self.faulty.point(self.commits[turn % 2])
        self.faulty.converge(automatic=True)


class Reboot(Scenario):
    """The same image once more."""

    def act(self, turn: int) -> None:
        self.faulty.converge("reboot", guests=["www"])

    def page(self, turn: int) -> str:
        return "one"


class RollBack(Scenario):
    """Back to the other image, by hand: each turn goes back from where the last one went to."""

    def install(self) -> None:
        super().install()
        self.faulty.point(self.commits[1])
        assert self.faulty.converge() == 0

    def act(self, turn: int) -> None:
        self.faulty.converge("rollback", guests=["www"])

    def page(self, turn: int) -> str:
        """What it is pinned to, if it came to that; what the repository says if not."""
        state = self.net.state
        intent = state.intent("www")
        if intent is None:
            return "two"
        pinned = next(one for one in state.generations("www") if one.number == intent.generation)
        return {self.digest(page): page for page in PAGES}[pinned.boot.image]

    def digest(self, page: str) -> str:
        """Return the sha256 of an image."""
        path = self.net.compiled(page)
        return run("sha256sum", str(path), cwd=path.parent).stdout.split()[0]


class FailedCheck(Scenario):
    """A new image that ends at once: rolled back, and tried again by hand the next turn."""

    exit_code = 1
    # What boots slowly ends later than a quick look is over.
    check = 'http = "http://10.0.0.2/"\nwithin = "5s"'

    def install(self) -> None:
        target = self.net.target
        broken = self.net.built.image(target, "broken", broken=True)
        self.commits.append(self.net.publish(image=broken.read_bytes()))
        super().install()
        self.faulty.point(self.commits[2])

    def act(self, turn: int) -> None:
        self.faulty.converge(retry=True)

    def make_good(self) -> int:
        return self.faulty.converge(automatic=True)

    def page(self, turn: int) -> str:
        return "one"


class Push(Scenario):
    """A new image, pushed into a bare repository: by the hook."""

    def install(self) -> None:
        make_bare(self.net, self.net.clone.parent)
        self.net.install()
        hook = self.net.clone / "hooks" / "post-receive"
        text = re.sub("(?m)^python=.*$", f"python={self.faulty.python}", hook.read_text())
        hook.write_text(text)
        self.faulty.point(self.commits[0])
        self.faulty.plan()
        assert self.faulty.converge() == 0

    def act(self, turn: int) -> None:
        refs = f"{self.commits[turn % 2]}:refs/heads/main"
        command = ("git", "push", "-q", "--force", str(self.net.clone), refs)
        self.net.host.run(*command, cwd=self.net.upstream)


SCENARIOS: dict[str, Callable[[Faulty, NetSite], Scenario]] = {
    "deploy": Deploy,
    "reboot": Reboot,
    "rollback": RollBack,
    "failed check": FailedCheck,
    "push": Push,
}


def cases() -> Iterator[ParameterSet]:
    """Yield scenario, target, victim: all of them, or a sample that has each of each."""
    for first, scenario in enumerate(SCENARIOS):
        for second, target in enumerate(TARGETS):
            for third, victim in enumerate(VICTIMS):
                if FULL or (first + 2 * second) % len(VICTIMS) == third:
                    yield pytest.param(scenario, target, victim, id=f"{scenario}-{target}-{victim}")


def chosen(steps: list[str], scenario: str, target: str, victim: str) -> list[str]:
    """Return the steps to strike at: a sample is spread, and in other places in every case.

    Mostly nothing is done between two records: where a guest is replaced, and where that fails, one
    case looks before them, too. What else is done is done by the same steps.
    """
    if (target, victim) != ("unix", "converger") or scenario not in {"deploy", "failed check"}:
        steps = [step for step in steps if step.startswith("after ")]
    if victim != "converger":  # to the others a line in the event log is no step
        steps = [step for step in steps if not step.startswith("after event ")]
    if FULL and (scenario == "deploy" or target == TARGETS[0]):
        return steps
    place = sum(map(ord, f"{scenario} {target} {victim}"))
    stride = max(1, len(steps) // SAMPLE)
    return steps[place % stride :: stride]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("scenario", "net", "victim"), list(cases()), indirect=["net"])
def test_killed_at_any_step_the_next_converge_makes_it_good(
    scenario: str,
    net: NetSite,
    victim: str,
    faulty: Faulty,
    record_property: Callable[[str, object], None],
) -> None:
    doing = SCENARIOS[scenario](faulty, net)
    # Twice: the first of its kind makes what later ones find.
    for turn in (1, 2):
        faulty.plan(note=True)
        faulty.take("steps")
        doing.act(turn)
    steps = list(dict.fromkeys(faulty.take("steps")))
    report = Report(f"{scenario}, {net.target}, {victim} killed", len(steps))
    for turn, step in enumerate(chosen(steps, scenario, net.target, victim), 3):
        faulty.plan(step=step, victim=victim)
        doing.act(turn)
        struck = faulty.take("struck")
        faulty.plan()
        code = doing.make_good()
        wrong = wrong_with(faulty, doing.page(turn))
        if code != doing.exit_code:
            wrong.append(f"ended with {code}: {faulty.said()}")
        (report.struck if struck else report.missed).append(step)
        report.found += [f"{step}: {text}" for text in wrong]
    record_property("faults", str(report))
    print(f"{report}:\n" + "\n".join(sorted(report.struck)))
    assert report.struck != []
    assert report.found == []
