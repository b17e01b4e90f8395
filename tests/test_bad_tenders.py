"""Bad input about tenders and memory: one clear message, an exit code, and nothing lost."""

from pathlib import Path

import pytest

from networked import NetSite, on, rolled_back, untouched

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
