"""The stand-in for xl does to its domains what xl does; what it prints is compared elsewhere."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stand_in_xl
from guests_built import Built
from namespace import Namespace
from support import wait_for

Xl = Callable[..., subprocess.CompletedProcess[str]]
# A guest that goes as far as to its network has none, and crashes.
CRASHING = ""
CONFIG = "name = 'www'\nkernel = '{image}'\nmemory = 32\nextra = '{extra}'\n{more}"


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Path]:
    """The folder with xl and xenstore's tools; no domain outlives the test."""
    folder = tmp_path / "tools"
    folder.mkdir()
    stand_in_xl.installed(folder)
    yield folder
    stand_in_xl.leave(folder)


@pytest.fixture
def xl(tools: Path) -> Xl:
    """Return a function that runs a line of a tool's: of xl's where it names none."""

    def run(line: str, *, ended: int = 0) -> subprocess.CompletedProcess[str]:
        words = line.split()
        command = words if words[0].startswith("xenstore") else ["xl", *words]
        done = subprocess.run(
            [tools / command[0], *command[1:]], capture_output=True, text=True, check=False
        )
        assert done.returncode == ended, done.stderr
        return done

    return run


@pytest.fixture
def config(tmp_path: Path, built: Built) -> Callable[..., Path]:
    """Return a function that writes the configuration of the domain `www`."""

    def write(extra: str = "delay=100000", more: str = "", **changed: str) -> Path:
        text = CONFIG.format(image=changed.get("image", built.image("xen")), extra=extra, more=more)
        path = tmp_path / "www.xl"
        path.write_text(text)
        return path

    return write


def state(xl: Xl, name: str = "www") -> str:
    return xl(f"list {name}").stdout.splitlines()[1].split()[4]


def names(xl: Xl) -> list[str]:
    return [line.split()[0] for line in xl("list").stdout.splitlines()[2:]]


def test_a_domain_is_created_listed_and_destroyed(xl: Xl, config: Callable[..., Path]) -> None:
    xl(f"create -q {config()}")
    assert names(xl) == ["www"]
    assert xl("domid www").stdout == "1\n"
    assert xl("domname 1").stdout == "www\n"
    xl("destroy www")
    assert names(xl) == []
    assert xl("destroy www", ended=1).stderr == "www is an invalid domain identifier (rc=-6)\n"


def test_a_domain_that_is_created_paused_runs_once_it_is_let_go(
    xl: Xl, config: Callable[..., Path], tools: Path
) -> None:
    path = config("exit=0", "on_poweroff = 'preserve'")
    xl(f"create -q -p {path}")
    assert state(xl) == "--p---"
    time.sleep(0.2)
    assert (tools / "console.1").read_text() == ""
    xl("unpause www")
    wait_for(lambda: state(xl) == "---s--")


def test_a_domain_that_was_paused_twice_is_let_go_twice(
    xl: Xl, config: Callable[..., Path]
) -> None:
    xl(f"create -q {config()}")
    states = []
    for order in ("pause", "pause", "unpause", "unpause"):
        xl(f"{order} www")
        states.append(state(xl))
    assert states == ["--p---", "--p---", "--p---", "-b----"]


def test_a_domain_is_known_by_its_new_name_and_keeps_its_uuid(
    xl: Xl, config: Callable[..., Path]
) -> None:
    identity = "11111111-2222-3333-4444-555555555555"
    path = config(more=f"uuid = '{identity}'")
    xl(f"create -q {path}")
    xl("rename www mort.io")
    (described,) = json.loads(xl("list -l mort.io").stdout)
    assert (described["domid"], described["config"]["c_info"]["uuid"]) == (1, identity)
    assert xl("xenstore-read /local/domain/1/name").stdout == "mort.io\n"
    assert identity in xl("list -v").stdout


def test_the_end_of_a_guest_ends_its_domain(xl: Xl, config: Callable[..., Path]) -> None:
    xl(f"create -q {config('exit=2')}")
    wait_for(lambda: names(xl) == [])


def test_a_console_has_what_was_said_before_and_ends_with_its_domain(
    xl: Xl, tools: Path, config: Callable[..., Path]
) -> None:
    path = config("exit=2", "on_poweroff = 'preserve'")
    xl(f"create -q {path}")
    wait_for(lambda: state(xl) == "---s--")
    command: list[str | Path] = [tools / "xl", "console", "www"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as console:
        assert console.stdout is not None
        assert "asked to exit" in console.stdout.readline()
        assert console.poll() is None
        xl("destroy www")
        assert console.wait(10) == 0


@pytest.mark.parametrize(
    ("extra", "state_after", "reason"), [("exit=2", "---s--", "0"), (CRASHING, "---sc-", "3")]
)
def test_a_domain_that_is_preserved_says_how_it_ended(
    extra: str, state_after: str, reason: str, xl: Xl, config: Callable[..., Path]
) -> None:
    kept = "on_poweroff = 'preserve'\non_crash = 'preserve'"
    xl(f"create -q {config(extra, kept)}")
    wait_for(lambda: state(xl) == state_after)
    assert xl("list -v www").stdout.split()[-2] == reason


def test_a_domain_that_is_to_restart_comes_back_with_another_number(
    xl: Xl, config: Callable[..., Path]
) -> None:
    path = config("delay=300 exit=2", "on_poweroff = 'restart'")
    xl(f"create -q {path}")
    wait_for(lambda: names(xl) == ["www"] and int(xl("domid www").stdout) > 2)


def test_a_guest_is_asked_through_xenstore_and_only_an_obedient_one_ends(
    xl: Xl, config: Callable[..., Path]
) -> None:
    for extra in ("delay=100000", "delay=100000 stand-in=obedient"):
        xl(f"create -q {config(extra)}")
        domid = xl("domid www").stdout.strip()
        xl(f"xenstore-write /local/domain/{domid}/control/shutdown poweroff")
        time.sleep(0.2)
        left = names(xl)
        if left:
            xl("destroy www")
        assert left == ([] if "obedient" in extra else ["www"])


def test_an_xl_that_is_killed_midway_leaves_half_a_domain(
    xl: Xl, tools: Path, config: Callable[..., Path]
) -> None:
    stand_in_xl.fail(tools, create={"midway": 60})
    with subprocess.Popen([tools / "xl", "create", "-q", config()]) as making:
        wait_for(lambda: names(xl) == ["www"])
        making.kill()
    assert re.search(r"^www +1 +0 +0 +--p---", xl("list").stdout, re.MULTILINE)
    xl("destroy www")
    assert names(xl) == []


def test_two_domains_may_have_one_uuid(xl: Xl, config: Callable[..., Path]) -> None:
    identity = "11111111-2222-3333-4444-555555555555"
    path = config(more=f"uuid = '{identity}'")
    xl(f"create -q {path}")
    xl("rename www other")
    xl(f"create -q {path}")
    assert xl("list -v").stdout.count(identity) == 2


@pytest.mark.parametrize(
    ("changed", "ended", "said"),
    [
        ({"image": "/nonexistent"}, 3, "failed to open file '/nonexistent'"),
        ({"image": "/etc/passwd"}, 3, "no loader found"),
        ({"more": "memory = 9000"}, 3, "can't allocate low memory"),
        ({"more": "vif = ['bridge=nobridge']"}, 3, "Could not find bridge device nobridge"),
        ({"more": "vif = ['bridge="}, 1, "config parsing error"),
        ({"more": "frobnicate = 1"}, 0, ""),
    ],
)
def test_what_cannot_be_created_leaves_nothing(
    changed: dict[str, str], ended: int, said: str, xl: Xl, config: Callable[..., Path]
) -> None:
    assert said in xl(f"create -q {config(**changed)}", ended=ended).stderr
    assert names(xl) == ([] if ended else ["www"])


def test_a_name_is_given_once(xl: Xl, config: Callable[..., Path]) -> None:
    xl(f"create -q {config()}")
    assert 'name "www" already exists' in xl(f"create -q {config()}", ended=3).stderr


def test_memory_is_what_the_others_leave(xl: Xl, config: Callable[..., Path]) -> None:
    def free() -> int:
        lines = dict(line.split(":") for line in xl("info").stdout.replace(" ", "").splitlines())
        return int(lines["free_memory"])

    before = free()
    xl(f"create -q {config()}")
    assert free() == before - 32


def test_a_guest_has_a_vif_with_its_mac_on_the_bridge(
    bridge: Namespace, tools: Path, config: Callable[..., Path]
) -> None:
    vif = "vif = ['mac=02:00:00:00:00:09,bridge=br0']"
    path = config("ipv4=10.0.0.2/24 ipv4-only=true hello=there", vif)
    bridge.run(str(tools / "xl"), "create", "-q", str(path))
    wait_for(lambda: bridge.get("10.0.0.2"))
    assert bridge.links() == ["br0", "tap0", "vif1.0"]
    assert "02:00:00:00:00:09" in bridge.run("ip", "neighbour", "show", "10.0.0.2").stdout
    bridge.run(str(tools / "xl"), "destroy", "www")
    assert bridge.links() == ["br0", "tap0"]


def test_it_fails_as_it_was_told(xl: Xl, tools: Path) -> None:
    stand_in_xl.fail(tools, list={"code": 1, "says": "cannot open xenstore"})
    assert xl("list", ended=1).stderr == "cannot open xenstore\n"
    assert xl("info").stdout


def test_xl_in_the_foreground_stays_until_the_domain_ends_and_says_how(
    xl: Xl, config: Callable[..., Path]
) -> None:
    said = xl(f"create -F -q {config('delay=300 exit=2')}").stderr
    assert "Domain 1 has shut down, reason code 0 0x0\n" in said
    assert names(xl) == []


def test_xl_in_the_foreground_says_that_somebody_has_destroyed_its_domain(
    xl: Xl, tools: Path, config: Callable[..., Path]
) -> None:
    command: list[str | Path] = [tools / "xl", "create", "-F", "-q", config()]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as waiting:
        wait_for(lambda: names(xl) == ["www"])
        xl("destroy www")
        assert waiting.communicate(timeout=10)[1].endswith("\nDomain 1 has been destroyed.\n")


def test_a_domain_outlives_the_xl_that_waits_for_it_and_stays_as_it_stopped(
    xl: Xl, tools: Path, config: Callable[..., Path]
) -> None:
    command: list[str | Path] = [tools / "xl", "create", "-F", "-p", "-q", config("exit=0")]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as waiting:
        wait_for(lambda: names(xl) == ["www"])
        waiting.kill()
    xl("unpause www")
    wait_for(lambda: state(xl) == "---s--")
