"""The unix target: the image is a program of this host, with MirageOS's socket stack."""

import re

from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import HOST_NETWORK, Boot, Guest
from mirage_hooks.boot.network import ports

# MirageOS's own key for the address of an IPv4 or IPv6 stack (3.0 and later); given twice it is an
# error (exit code 64).
_ADDRESS = re.compile(r"--ipv[46]=")
_ADDRESSES = ("--ipv4=", "--ipv6=")


class Unix:
    """A MirageOS `unix` image with the socket stack."""

    def check(self, guest: Guest) -> None:
        """Raise ConfigError where the target cannot be what the guest asks for."""
        try:
            ports(guest.args)
        except ValueError as error:
            raise ConfigError(f"args: {error}") from None
        for key in _ADDRESSES:
            if sum(arg.startswith(key) for arg in guest.args) > 1:
                raise ConfigError(f"args: {key.rstrip('=')} is given more than once")
        if len(guest.network) > 1:
            raise ConfigError("a unix guest on the host's own sockets has one network at most")
        for device, config in guest.network.items():
            if config.network != HOST_NETWORK:
                raise ConfigError(
                    f"network {device}: {config.network!r} is not bound on this host",
                    f"a unix guest uses the host's own sockets: network = {HOST_NETWORK!r}",
                )
            if config.address is not None and any(_ADDRESS.match(arg) for arg in guest.args):
                raise ConfigError(f"network {device}: the address is given in args, too")

    def arguments(self, guest: Guest) -> tuple[str, ...]:
        """Return the guest's arguments: those of its network, then its own."""
        passed = []
        for config in guest.network.values():
            if (interface := config.interface) is not None:
                passed.append(f"--ipv{interface.version}={interface.with_prefixlen}")
        return (*passed, *guest.args)

    def command(self, boot: Boot, name: str, image: str) -> tuple[str, list[str]]:
        """Return the image itself, and its arguments quoted for MirageOS."""
        return image, [name, *map(quote, boot.arguments)]


def quote(argument: str) -> str:
    """Return an argument so that MirageOS takes it as one.

    A MirageOS guest joins its arguments with spaces and splits them again, on unix too: at white
    space, with quotes, and backslash as escape (mirage/parse-argv).
    """
    if not re.search(r"[\s'\"\\]", argument):
        return argument
    key, equals, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    if re.search(r"[\s'\"\\]", key):
        key, equals, value = "", "", argument
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}{equals}"{escaped}"'
