"""Fixtures: a repository with an upstream, and a host that is left as it was."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

import real_tenders
from ci_runs import leave_ci
from faulty import QUICK, Faulty
from guests_built import Built, BuiltTarget, Start
from imprint import Imprint
from manifests import HOST, Read, Refusal, commit
from mirage_hooks.boot import manifest, wiring
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Guest
from mirage_hooks.boot.host import Host
from mounts import mount_namespace
from namespace import Namespace, network_namespace
from networked import NetSite, networked
from practice import Practice, Took
from publisher import Publisher, make_publisher, make_upstream
from site_copy import APT, OPAM, SUDO, SiteCopy, copy_site
from ssh_server import ssh_server
from support import GUESTS, Site, leave, leave_state, make_site, run

# `HYPOTHESIS_PROFILE=long` looks at ten times as many examples. No deadline in either: a test
# that reads and writes files is as fast as the disk is just then.
settings.register_profile("short", max_examples=100, deadline=None)
settings.register_profile("long", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def pytest_report_header() -> list[str]:
    """Say who plays the tenders."""
    return real_tenders.header()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which faults were injected, and what they led to; and how long things took."""
    reports = [
        *terminalreporter.stats.get("passed", ()),
        *terminalreporter.stats.get("failed", ()),
    ]
    for section in ("faults", "timings"):
        lines = [text for one in reports for key, text in one.user_properties if key == section]
        if lines:
            terminalreporter.section(section)
            for line in sorted(lines):
                terminalreporter.write_line(str(line))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that compiles the unix guest with a page, once a page."""
    folder = tmp_path_factory.mktemp("images")

    def compile_page(page: str) -> Path:
        image = folder / f"{page.replace(' ', '-')}.unix"
        if not image.exists():
            source = GUESTS / "unix_web.c"
            define = f'-DPAGE="{page}"'
            subprocess.run(["cc", "-O2", "-static", define, "-o", image, source], check=True)
        return image

    return compile_page


@pytest.fixture(scope="session")
def built() -> Iterator[Built]:
    """Images for taps, Solo5 and QEMU, and stand-ins for Solo5's tenders."""
    # Not in pytest's folder: guests may run as another user, who can't get there.
    with tempfile.TemporaryDirectory(prefix="mh-built-") as folder:
        Path(folder).chmod(0o755)
        yield Built(Path(folder))


@contextmanager
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the machine's git configuration out, and sockets in a folder of their own."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    home = folder / "home"
    home.mkdir()
    # Short: a socket's path has 107 bytes, and pytest's folders use them up.
    runtime = tempfile.mkdtemp(prefix="mh-")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    (home / ".gitconfig").write_text(
        "[user]\nname = Tester\nemail = tester@example.org\n[init]\ndefaultBranch = main\n"
        "[advice]\ndetachedHead = false\n"
    )
    yield
    shutil.rmtree(runtime)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be at home in the test's own folder."""
    with at_home(tmp_path, monkeypatch):
        yield


@pytest.fixture
def site(tmp_path: Path, compiled: Callable[[str], Path]) -> Iterator[Site]:
    """A clone with one image published; nothing is installed yet."""
    made = make_site(tmp_path, compiled)
    yield made
    leave(made)


@pytest.fixture(scope="session")
def imprint(tmp_path_factory: pytest.TempPathFactory, compiled: Callable[[str], Path]) -> Imprint:
    """What `install` leaves in a clone."""
    folder = tmp_path_factory.mktemp("imprint")
    with pytest.MonkeyPatch.context() as monkeypatch, at_home(folder, monkeypatch):
        return Imprint(folder, compiled)


@pytest.fixture
def installed(site: Site, imprint: Imprint) -> Site:
    """A clone in which nothing was deployed yet."""
    imprint.put(site)
    return site


@pytest.fixture
def deployed(installed: Site) -> Site:
    """A clone whose first image runs."""
    installed.deploy()
    assert installed.page() == "one"
    return installed


@pytest.fixture
def twice(deployed: Site) -> Site:
    """A clone whose second image runs."""
    deployed.publish("two")
    deployed.pull()
    assert deployed.page() == "two"
    return deployed


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A job of no CI system known here, with a fresh clone of an empty deployment repository."""
    leave_ci(monkeypatch)
    make_upstream(tmp_path)
    return make_publisher(tmp_path)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SiteCopy:
    """A copy of contrib/site, whose programs are found first."""
    made = copy_site(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    # What a make above this one, or its user, says is none of the site's.
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "ADDR", "MASK", "GWS", "TLS", "DEPLOYMENT"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def unprepared(copied: SiteCopy) -> SiteCopy:
    """A copy of contrib/site on a machine where nothing is installed, as far as it can see."""
    for name, text in {"opam": OPAM, "apt-get": APT, "sudo": SUDO}.items():
        copied.put(name, text)
    return copied


@pytest.fixture
def mort_io(tmp_path: Path) -> Iterator[Practice]:
    """A site for a real Xen, with a first image published; nothing is installed yet."""
    made = Practice(tmp_path / "mort.io")
    made.set_up()
    yield made
    leave_state(made.state)
    assert made.domains() == []
    shutil.rmtree(made.clone)


@pytest.fixture
def took(record_property: Callable[[str, object], None]) -> Took:
    """Return what has how long something took, in seconds, among the timings at the end."""
    return lambda what, seconds: record_property("timings", f"{what}: {seconds:.2f} s")


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of an sshd; git gets in there, with GIT_SSH_COMMAND."""
    with ssh_server(tmp_path, monkeypatch) as port:
        yield port


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small program of this host."""
    path = tmp_path_factory.mktemp("program") / "a"
    source = b"int main(void) { return 0; }\n"
    subprocess.run(["cc", "-x", "c", "-o", path, "-"], input=source, check=True)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository without a commit."""
    folder = tmp_path / "repository"
    run("git", "init", "-q", str(folder), cwd=tmp_path)
    return folder


@pytest.fixture
def read(folder: Path) -> Read:
    """Return a function that reads the guests of a manifest's text on a host."""

    def read_guests(text: str, bound: Host = HOST) -> dict[str, Guest]:
        return manifest.read_guests(commit(folder, text), bound)

    return read_guests


@pytest.fixture
def refusal(folder: Path) -> Refusal:
    """Return a function that gives the message a manifest's text is refused with.

    What names the file and the revision is taken off.
    """

    def refuse(text: str, bound: Host = HOST) -> str:
        revision = commit(folder, text)
        with pytest.raises(ConfigError) as error:
            manifest.read_guests(revision, bound)
        source = f"mirage-hooks.toml at {revision.id[:7]}: "
        assert error.value.message.startswith(source)
        return error.value.message.removeprefix(source)

    return refuse


@pytest.fixture
def tun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What udev makes of /dev/net/tun on hosts (50-udev-default.rules): a container may not."""
    path = tmp_path / "tun"
    os.mknod(path, stat.S_IFCHR, os.makedev(10, 200))
    path.chmod(0o666)
    monkeypatch.setattr(wiring, "_TUN", str(path))
    return path


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network of the test's own; nothing that was started in it outlives the test."""
    with network_namespace() as made:
        yield made


@pytest.fixture
def console(tmp_path: Path) -> Path:
    """Where guests write to."""
    return tmp_path / "console"


@pytest.fixture
def bridge(namespace: Namespace) -> Namespace:
    """A namespace with a bridge, and the tap `tap0` on it."""
    namespace.bridge("br0", "10.0.0.1/24", "fd00::1/64")
    namespace.tap("tap0", "br0")
    return namespace


@pytest.fixture
def start(bridge: Namespace, built: Built, console: Path) -> Start:
    """Return a function that boots a guest on the bridge."""

    def boot(
        target: BuiltTarget,
        *arguments: str,
        page: str = "hello",
        dhcp: bool = False,
        broken: bool = False,
    ) -> subprocess.Popen[bytes]:
        image = built.image(target, page, dhcp=dhcp, broken=broken)
        return bridge.popen(*built.command(target, image, "tap0", *arguments), console=console)

    return boot


@pytest.fixture
def net(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    namespace: Namespace,
    built: Built,
    imprint: Imprint,
) -> Iterator[NetSite]:
    """A clone on a host of its own, whose guest is for the target that the test names."""
    with networked(tmp_path, namespace, built, request.param, imprint=imprint) as made:
        yield made


@pytest.fixture
def running(net: NetSite) -> NetSite:
    """A clone whose guest runs, on a host of its own."""
    net.command("deploy")
    assert net.page() == "one"
    return net


@pytest.fixture
def faulty(net: NetSite, tmp_path: Path) -> Iterator[Faulty]:
    """A clone on a host of its own, with a Python that may have faults."""
    made = Faulty(net, tmp_path / "faulty", net.host.inside)
    with made.serving():
        yield made


@pytest.fixture
def frail(site: Site, tmp_path: Path, imprint: Imprint) -> Iterator[Faulty]:
    """A clone whose first image runs, with a Python that may have faults."""
    made = Faulty(site, tmp_path / "faulty")
    site.check = QUICK
    site.publish()
    site.pull()
    imprint.put(site)
    with made.serving():
        assert made.converge() == 0
        yield made
    # What a test has lost, it must not leave behind.
    for process in psutil.process_iter(["cmdline"]):
        if str(site.state.folder / "guests") in " ".join(process.info["cmdline"] or []):
            process.kill()


@pytest.fixture
def publish(frail: Faulty) -> Callable[[str], None]:
    """Return a function that has an image on the branch that deploys, without a hook."""

    def bring(page: str) -> None:
        frail.site.publish(page)
        frail.site.pull_unhooked()

    return bring


@pytest.fixture
def mounts() -> Iterator[None]:
    """Mounts of the test's own: nobody else sees what it mounts."""
    with mount_namespace():
        yield
