"""What a DHCP server grants, as bytes: none of them raise, whoever sent them."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface


@dataclass(frozen=True)
class Lease:
    """What a DHCP server granted to a MAC: DHCPACK (RFC 2131, 4.3.1), options of RFC 2132.

    A server that names no subnet mask leaves the address with a prefix of 32.
    """

    mac: str
    address: IPv4Interface
    routers: tuple[IPv4Address, ...]


def decode(data: bytes) -> Lease | None:
    """Return what a DHCP message grants, None where it grants nothing.

    A reply to an Ethernet client; the options follow 236 bytes and a cookie (RFC 2131, 2 and 3).
    """
    if data[:3] != b"\x02\x01\x06" or data[236:240] != b"\x63\x82\x53\x63":
        return None
    options = _options(data[240:])
    address, mask, routers = data[16:20], options.get(1, b""), options.get(3, b"")
    if options.get(53) != b"\x05" or not any(address):  # who has an address may ask for the rest
        return None
    whole = len(routers) // 4 * 4
    found = tuple(IPv4Address(routers[at : at + 4]) for at in range(0, whole, 4))
    return Lease(data[28:34].hex(":"), IPv4Interface((address, _prefix(mask))), found)


def _options(data: bytes) -> dict[int, bytes]:
    """RFC 2132, 2: a code, a length, a value; 0 pads and 255 ends."""
    found = dict[int, bytes]()
    at = 0
    while at + 1 < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        value = data[at + 2 : at + 2 + data[at + 1]]
        found[data[at]] = found.get(data[at], b"") + value  # RFC 3396: a long one comes in parts
        at += 2 + data[at + 1]
    return found


def _prefix(mask: bytes) -> int:
    """Return the prefix of a mask, 32 where it is none."""
    bits = f"{int.from_bytes(mask):032b}"
    ones = bits.rstrip("0")
    return len(ones) if len(mask) == 4 and ones and "0" not in ones else 32
