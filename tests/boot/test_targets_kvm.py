"""Whether KVM works, told by trying: here by programs in QEMU's place, and by the real one."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mirage_hooks.boot.errors import HostError
from mirage_hooks.boot.targets import kvm

QEMU = shutil.which("qemu-system-x86_64")


@pytest.fixture
def in_place_of_qemu(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that makes a program of shell commands."""

    def make(commands: str) -> str:
        path = tmp_path / "qemu"
        path.write_text(f"#!/bin/sh\n{commands}\n")
        path.chmod(0o755)
        return str(path)

    return make


def why_not(qemu: str) -> str:
    with pytest.raises(HostError) as error:
        kvm.probe(qemu)
    return error.value.message


def test_kvm_works_where_the_kernel_comes_to_its_end(
    in_place_of_qemu: Callable[[str], str],
) -> None:
    kvm.probe(in_place_of_qemu("exit 67"))


def test_an_end_that_is_not_the_kernels_is_told(in_place_of_qemu: Callable[[str], str]) -> None:
    message = why_not(in_place_of_qemu("exit 1"))
    assert message == "this host's KVM does not work: a guest that uses SSE ended with 1"


# It says so, and waits for ever.
def test_what_qemu_says_of_an_error_is_told_at_once(in_place_of_qemu: Callable[[str], str]) -> None:
    started = time.monotonic()
    message = why_not(in_place_of_qemu("echo 'KVM internal error. Suberror: 1' >&2\nexec sleep 30"))
    assert message == "this host's KVM does not work: KVM internal error. Suberror: 1"
    assert time.monotonic() - started < 5


def test_a_guest_that_does_not_end_is_given_up(
    in_place_of_qemu: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvm, "_SECONDS", 0.2)
    assert "did not end in 0 s" in why_not(in_place_of_qemu("exec sleep 30"))


def test_what_cannot_be_executed_is_told(tmp_path: Path) -> None:
    assert "cannot be executed: No such file" in why_not(f"{tmp_path}/none")


def test_words_that_are_no_text_are_told_as_far_as_they_are(
    in_place_of_qemu: Callable[[str], str],
) -> None:
    message = why_not(in_place_of_qemu(r"printf 'error: \377\n' >&2"))
    assert message.startswith("this host's KVM does not work: error: ")


def test_it_is_tried_once(in_place_of_qemu: Callable[[str], str], tmp_path: Path) -> None:
    qemu = in_place_of_qemu(f"echo >>{tmp_path}/tried; exit 67")
    kvm.probe(qemu)
    kvm.probe(qemu)
    assert (tmp_path / "tried").read_text() == "\n"


def test_no_file_is_left(
    in_place_of_qemu: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kvm.probe(in_place_of_qemu("exit 67"))
    assert [path.name for path in tmp_path.iterdir() if "kvm" in path.name] == []


# In software, where it always can: KVM itself may lack what is asked for.
@pytest.mark.skipif(QEMU is None, reason="it takes QEMU: apt-get install qemu-system-x86")
def test_the_real_qemu_runs_the_kernel_to_its_end(in_place_of_qemu: Callable[[str], str]) -> None:
    kvm.probe(in_place_of_qemu(f'shift 2; exec {QEMU} -accel tcg "$@"'))
