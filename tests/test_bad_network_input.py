"""Bad input about networks and devices: one clear message, an exit code, and nothing lost.

What can be known before is refused before the running guest is touched: it is the same process
then. What only the boot can tell is rolled back.
"""

from pathlib import Path

import pytest

from guests_built import BuiltTarget
from mirage_hooks.boot.record import Generation
from networked import BRIDGE, NetSite, each_target, on
from support import wait_for


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


@pytest.fixture
def running(net: NetSite) -> NetSite:
    """A guest that runs."""
    net.command("deploy")
    assert net.page() == "one"
    return net


# The image.

OTHERS: dict[str, BuiltTarget] = {"unix": "spt", "spt": "hvt", "hvt": "virtio", "virtio": "spt"}


@each_target
def test_an_image_for_another_target_is_refused(running: NetSite) -> None:
    other = OTHERS[running.target]
    running.publish(image=running.built.image(other).read_bytes())
    what = f"image www.{running.target} is for target {other}, the guest for {running.target}"
    untouched(running, 3, what)


@on("spt", "hvt")
def test_an_abi_that_the_tender_does_not_run_is_refused(running: NetSite) -> None:
    running.publish(image=running.built.image(running.target, abi=1).read_bytes())
    untouched(running, 6, "runs images of ABI 2, this one is of ABI 1", "Solo5 0.8 and later")


@on("spt", "virtio")
@pytest.mark.parametrize(
    ("devices", "table", "words"),
    [
        (
            {"service": "NET_BASIC", "storage": "BLOCK_BASIC"},
            "",
            [
                "devices do not match: storage is not configured",
                "the image's own: service (network), storage (block)",
                "configured: service (network)",
            ],
        ),
        (
            {"service": "NET_BASIC"},
            '[guest.www.block.storage]\nvolume = "data"',
            ["devices do not match: the image has no storage"],
        ),
        (
            {"service": "NET_BASIC", "storage": "NET_BASIC"},
            '[guest.www.block.storage]\nvolume = "data"',
            ["devices do not match: storage is a network device, configured as block"],
        ),
    ],
    ids=["unbound", "extra", "mistyped"],
)
def test_devices_that_are_not_the_images_are_refused(
    running: NetSite, devices: dict[str, str], table: str, words: list[str]
) -> None:
    running.tell_host(volumes={"data": {"path": "/dev/zero"}})
    running.tables = table
    running.publish(image=running.built.image(running.target, devices=devices).read_bytes())
    untouched(running, 5, *words)


# The host's network.


@on("spt")
def test_a_bridge_that_is_missing_is_refused(running: NetSite) -> None:
    running.bind({"bridge": "br-none"})
    running.publish("two")
    untouched(running, 6, "network: bridge br-none does not exist", "`create = true`")


@on("spt")
def test_what_is_no_bridge_is_refused(running: NetSite) -> None:
    running.host.tap("theirs")
    running.bind({"bridge": "theirs"})
    running.publish("two")
    untouched(running, 6, "network: theirs is no bridge, but a tap")


@on("spt")
def test_a_bridge_of_somebody_elses_is_not_taken_for_ours(running: NetSite) -> None:
    running.host.bridge("br-theirs")
    running.bind({**BRIDGE, "bridge": "br-theirs"})
    running.publish("two")
    untouched(running, 6, "network: br-theirs exists already, and was not made for this repository")


@on("spt")
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("missing", ["network: tap tap0 does not exist", "ip tuntap add dev tap0"]),
        ("down", ["network: tap tap0 is down", "ip link set dev tap0 up"]),
        ("busy", ["network: tap tap0 is in use by another process"]),
        ("roots", ["tap tap0 cannot be opened by nobody", "ip tuntap add dev tap0"]),
        ("bridge", ["network: tap0 is no tap"]),
    ],
)
def test_a_tap_that_does_not_serve_is_refused(
    running: NetSite, state: str, words: list[str], tmp_path: Path
) -> None:
    if state == "bridge":
        running.host.bridge("tap0")
    elif state != "missing":
        running.host.tap("tap0", user="root" if state == "roots" else "nobody")
    if state == "down":
        running.host.run("ip", "link", "set", "tap0", "down")
    if state == "busy":
        image = running.built.image("unix")
        running.host.popen(image, "--interface=tap0", console=tmp_path / "busy")
        wait_for(lambda: running.link("tap0", "carrier") == "1")
    running.bind({"tap": "tap0"})
    running.publish("two")
    untouched(running, 6, *words)


@on("spt")
def test_a_network_that_the_host_does_not_bind_is_refused(running: NetSite) -> None:
    running.tell_host(networks={})
    running.publish("two")
    untouched(running, 3, "'public' is not bound on this host", "[networks.public]")


@on("spt")
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ('address = "10.0.0.2"', "address '10.0.0.2' has no prefix"),
        ('address = "10.0.0.0/24"', "10.0.0.0 is that of the network"),
        ('address = "10.0.0.255/24"', "10.0.0.255 is the broadcast address"),
        ('address = "10.0.0.2/24"\ngateway = "10.0.1.1"', "gateway 10.0.1.1 is not on"),
        ('address = "10.0.0.2/24"\ndhcp = true', "only one of address, dhcp and baked"),
        ('address = "10.0.0.2/24"\nmac = "01:00:00:00:00:01"', "is no guest's"),
    ],
)
def test_an_address_that_cannot_be_is_refused(running: NetSite, device: str, words: str) -> None:
    running.device = device
    running.publish("two")
    untouched(running, 3, "guest www", words)


@on("spt")
@pytest.mark.parametrize(
    ("device", "words"),
    [
        ('address = "10.0.0.2/24"', "have one address 10.0.0.2 on br0"),
        (
            'address = "10.0.0.3/24"\nmac = "02:00:00:00:00:07"',
            "have one mac 02:00:00:00:00:07 on br0",
        ),
    ],
)
def test_two_guests_with_one_address_are_refused(running: NetSite, device: str, words: str) -> None:
    running.device = 'address = "10.0.0.2/24"\nmac = "02:00:00:00:00:07"'
    running.more = running.table("other", device, [], "ping = true")
    running.publish("two")
    untouched(running, 3, f"guests www and other {words}")


# The tender.


@on("spt", "virtio")
@pytest.mark.parametrize("made", ["nothing", "a file", "a folder"])
def test_a_tender_that_cannot_be_executed_is_refused(
    running: NetSite, made: str, tmp_path: Path
) -> None:
    tender = tmp_path / "tender"
    if made == "a file":
        tender.write_text("#!/bin/sh\n")
    elif made == "a folder":
        tender.mkdir()
    running.tell_host(tenders={running.target: str(tender), "kvm": False})
    running.publish("two")
    untouched(running, 6, f"{tender} is no program that can be executed", "host.toml names it")


@on("spt", "hvt", "virtio")
def test_a_tender_that_does_not_start_at_all_is_refused(running: NetSite, tmp_path: Path) -> None:
    tender = script(tmp_path / "tender", "echo 'libslirp.so.0: cannot open' >&2\nexit 1")
    running.tell_host(tenders={running.target: str(tender), "kvm": False})
    running.publish("two")
    untouched(running, 6, f"{tender} --version", "libslirp.so.0: cannot open")


@on("spt")
def test_a_tender_that_is_not_on_the_hosts_path_is_refused(running: NetSite) -> None:
    running.tell_host(tenders={})
    running.publish("two")
    untouched(running, 6, "solo5-spt is not on this host's PATH", "spt = '/path/to/solo5-spt'")


@on("virtio")
def test_a_qemu_that_dies_at_its_start_is_rolled_back(running: NetSite, tmp_path: Path) -> None:
    # With the memory of the first boot it starts.
    tender = script(
        tmp_path / "tender",
        'case "$*" in *"-m 64"*) echo "qemu: cannot set up guest memory" >&2; exit 1;; esac\n'
        'exec qemu-system-x86_64 "$@"',
    )
    running.tell_host(tenders={"virtio": str(tender), "kvm": False})
    running.memory = 64
    running.publish("two")
    rolled_back(running, "exited with 1", "qemu: cannot set up guest memory")


@on("virtio")
def test_where_kvm_does_not_work_qemu_does_without_and_says_so(net: NetSite) -> None:
    """This machine's KVM may work: then that is said."""
    net.tell_host(tenders={})
    deploy = net.command("deploy")
    assert "www: QEMU without KVM: " in deploy.stdout or "www: QEMU with KVM" in deploy.stdout
    assert net.page() == "one"


@on("hvt")
def test_a_kvm_without_sse_is_named_with_the_way_out(running: NetSite, tmp_path: Path) -> None:
    """The tender is a stand-in that says what KVM does, and ends, for a guest with 64 MiB."""
    stand_in = running.built.tender("hvt")
    tender = script(
        tmp_path / "solo5-hvt",
        'case "$*" in *--mem=64*) echo "KVM: internal error exit" >&2; exit 1;; esac\n'
        f'exec {stand_in} "$@"',
    )
    running.tell_host(tenders={"hvt": str(tender)})
    running.memory = 64
    running.publish("two")
    rolled_back(running, "this host's KVM lacks SSE: build the image for spt")


# Memory.


@on("spt", "virtio")
def test_more_memory_than_the_host_allows_is_refused(running: NetSite) -> None:
    running.memory = 2048
    running.publish("two")
    untouched(running, 3, "memory 2048 MiB is more than this host allows (1024)", "[limits]")


@on("spt", "hvt", "virtio")
def test_less_memory_than_the_image_takes_is_refused(running: NetSite) -> None:
    running.memory = 1
    running.publish("two")
    untouched(running, 5, "memory 1 MiB is too little", "the image's segments alone end at ")


def script(path: Path, text: str) -> Path:
    """Write a program of the shell's."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path
