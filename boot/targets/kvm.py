"""Whether KVM works for a unikernel: some nested ones lack SSE, and a guest dies of it.

Told by trying: a kernel of 60 bytes that uses SSE once and ends.
"""

import signal
import struct
import subprocess
import tempfile
import threading
from functools import cache

from mirage_hooks.boot.errors import HostError

DEVICE = "/dev/kvm"
_SECONDS = 5.0

_AT = 0x100000
_MAGIC, _ADDRESSES_GIVEN = 0x1BADB002, 1 << 16  # of the Multiboot specification, 0.6.96
_HEADER_BYTES = 32
_CODE = bytes.fromhex(
    "0f20e0"  # mov %cr4, %eax
    "0d00020000"  # or $OSFXSR, %eax
    "0f22e0"  # mov %eax, %cr4
    "0fae153a001000"  # ldmxcsr 0x10003a: the word behind the code
    "b021"  # mov $0x21, %al
    "66ba0105"  # mov $0x501, %dx: isa-debug-exit's
    "ee"  # out %al, %dx
    "f4"  # hlt
)
_MXCSR = struct.pack("<I", 0x1F80)  # as after a reset
_WORKS = 0x21 << 1 | 1  # what QEMU exits with then


def probe(qemu: str) -> None:
    """Raise HostError where a guest that uses SSE does not run under this QEMU and KVM."""
    if reason := _failure(qemu):
        raise HostError(f"this host's KVM does not work: {reason}")


@cache  # a KVM that does not work takes seconds to say so
def _failure(qemu: str) -> str:
    """Return why such a guest does not run, "" where it does."""
    with tempfile.NamedTemporaryFile(prefix="mirage-hooks-kvm-") as kernel:
        kernel.write(_kernel())
        kernel.flush()
        command = [
            *(qemu, "-accel", "kvm", "-m", "16", "-nodefaults", "-display", "none"),
            *("-device", "isa-debug-exit", "-kernel", kernel.name),
        ]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            return f"{qemu} cannot be executed: {error.strerror}"
        with process:
            limit = threading.Timer(_SECONDS, process.kill)
            limit.start()
            assert process.stderr is not None  # noqa: S101 - it is a pipe
            # After "KVM internal error" QEMU waits for ever: nothing in it goes on.
            said = next((line for line in process.stderr if "error" in line.lower()), "")
            limit.cancel()
            if said:
                process.kill()
    if said or process.returncode == _WORKS:
        return said.strip()
    late = process.returncode == -signal.SIGKILL
    ended = f"did not end in {_SECONDS:.0f} s" if late else f"ended with {process.returncode}"
    return f"a guest that uses SSE {ended}"


def _kernel() -> bytes:
    flags = _ADDRESSES_GIVEN
    checksum = -(_MAGIC + flags) & 0xFFFFFFFF
    entry = _AT + _HEADER_BYTES
    header = struct.pack("<8I", _MAGIC, flags, checksum, _AT, _AT, 0, 0, entry)
    return header + _CODE + _MXCSR
