"""Packet sockets: the frames of one link, those that it receives and those that it is given.

They see a frame before the bridge that the link is a port of takes it; so a socket on a guest's tap
is bound to every protocol (ETH_P_ALL) and filtered: one bound to ARP would see nothing. packet(7).
"""

import ctypes
import socket
import struct
import time
from typing import NamedTuple

# Linux's asm-generic/socket.h and if_ether.h; Python names none of them.
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
_ETH_P_ALL = 3

_FRAME_BYTES = 2048
_TIMESPEC = struct.Struct("@ll")

# A classic BPF instruction: operation, how many instructions to skip where a comparison holds and
# where it does not, operand (linux/filter.h, "BPF Classic vs eBPF" in the kernel's documentation).
Filter = list[tuple[int, int, int, int]]

# Operations, as `bpf_asm` calls them: loads from the frame, comparisons, the number of bytes kept.
_LDH, _LDB, _LDH_X, _LDX_IHL = 0x28, 0x30, 0x48, 0xB1
_JEQ, _JGT, _JGE, _JSET, _RET = 0x15, 0x25, 0x35, 0x45, 0x06
# linux/filter.h: SKF_AD_OFF + SKF_AD_PKTTYPE, where the frame's sockaddr_ll.sll_pkttype is read.
_PACKET_TYPE = 0xFFFFF004

# A filter of the two is what a guest can fill our buffer with: nothing but what is looked for.

# ARP, UDP to a DHCP server and neighbour discovery, from the guest alone: what others say on its
# bridge is without end. UDP to a DHCP client from both. No later fragments.
ANNOUNCEMENTS: Filter = [
    (_LDH, 0, 0, 12),  # 0: the EtherType
    (_JEQ, 15, 0, 0x0806),  # 1: ARP? to 17
    (_JEQ, 0, 8, 0x0800),  # 2: not IPv4? to 11
    (_LDB, 0, 0, 23),  # 3: the protocol
    (_JEQ, 0, 15, 17),  # 4: not UDP? drop
    (_LDH, 0, 0, 20),  # 5: flags and fragment offset
    (_JSET, 13, 0, 0x1FFF),  # 6: a later fragment? drop
    (_LDX_IHL, 0, 0, 14),  # 7: x = the length of the IPv4 header
    (_LDH_X, 0, 0, 16),  # 8: the destination port
    (_JEQ, 7, 0, 67),  # 9: to a server? to 17
    (_JEQ, 8, 9, 68),  # 10: to a client? keep, else drop
    (_JEQ, 0, 8, 0x86DD),  # 11: not IPv6? drop
    (_LDB, 0, 0, 20),  # 12: the next header
    (_JEQ, 0, 6, 58),  # 13: not ICMPv6? drop
    (_LDB, 0, 0, 54),  # 14: the type of the message
    (_JGE, 0, 4, 135),  # 15: below a solicitation? drop
    (_JGT, 3, 0, 136),  # 16: above an advertisement? drop
    (_LDB, 0, 0, _PACKET_TYPE),  # 17: which way it goes
    (_JEQ, 1, 0, socket.PACKET_OUTGOING),  # 18: to the guest? drop
    (_RET, 0, 0, 0xFFFF),  # 19: keep
    (_RET, 0, 0, 0),  # 20: drop
]

# ARP, ICMP and ICMPv6.
ANSWERS: Filter = [
    (_LDH, 0, 0, 12),  # 0: the EtherType
    (_JEQ, 6, 0, 0x0806),  # 1: ARP? keep
    (_JEQ, 0, 2, 0x0800),  # 2: not IPv4? to 5
    (_LDB, 0, 0, 23),  # 3: the protocol
    (_JEQ, 3, 4, 1),  # 4: ICMP? keep, else drop
    (_JEQ, 0, 3, 0x86DD),  # 5: not IPv6? drop
    (_LDB, 0, 0, 20),  # 6: the next header
    (_JEQ, 0, 1, 58),  # 7: not ICMPv6? drop
    (_RET, 0, 0, 0xFFFF),  # 8: keep
    (_RET, 0, 0, 0),  # 9: drop
]


class Captured(NamedTuple):
    """A frame, the wall clock's seconds when the kernel saw it, and whether the link was given it.

    What a tap receives comes from its guest; what it is given goes to the guest.
    """

    data: bytes
    at: float
    outgoing: bool


def open_socket(link: str, keep: Filter) -> socket.socket:
    """Return a non-blocking packet socket on a link, for frames that a filter keeps.

    Raises OSError: PermissionError without CAP_NET_RAW, ENODEV where there is no such link.
    """
    # Of protocol 0 it receives nothing until it is bound: no frame of other links, none unfiltered.
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in keep))
        # struct sock_fprog: how many instructions, and where they are.
        fprog = struct.pack("HP", len(keep), ctypes.addressof(program))
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        opened.bind((link, _ETH_P_ALL))
    except OSError:
        opened.close()
        raise
    return opened


def receive(opened: socket.socket) -> Captured | None:
    """Return the next frame that has come, None where there is none, or the link went down."""
    try:
        space = socket.CMSG_SPACE(_TIMESPEC.size)
        data, told, _, (_, _, kind, *_) = opened.recvmsg(_FRAME_BYTES, space)
    except OSError:
        return None
    at = time.time()
    for level, what, value in told:
        if (level, what, len(value)) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS, _TIMESPEC.size):
            whole, nanoseconds = _TIMESPEC.unpack(value)
            at = whole + nanoseconds / 1e9
    return Captured(data, at, kind == socket.PACKET_OUTGOING)
