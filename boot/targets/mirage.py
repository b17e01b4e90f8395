"""What every MirageOS image has in common: how it takes its arguments, and its addresses."""

import re
from collections.abc import Iterable
from itertools import chain

from mirage_hooks.boot.device import HOST_NETWORK, NetworkConfig
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.guest import Guest
from mirage_hooks.boot.network import ports

# The keys of a network stack, without the group that they may start with. Given twice, any of them
# is an error to a guest (exit code 64).
_KEY = re.compile(
    r"--(?P<key>(?:[a-z0-9]+-)*?"
    r"(?:ipv[46](?:-gateway|-only)?|ip|netmask|gateways|interface))(?:=|\Z)"
)

_MOST_BYTES = 8191

# What parse-argv splits at (Char.Ascii.is_white of astring).
_WHITE = " \t\n\v\f\r"


def check(guest: Guest) -> None:
    """Raise ConfigError where a guest's arguments are unsound, or at odds with its networks."""
    try:
        ports(guest.args)
    except ValueError as error:
        raise ConfigError(f"args: {error}") from None
    keys = [match["key"] for arg in guest.args if (match := _KEY.match(arg))]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"args: --{key} is given more than once")
    passed = [addresses(one, guest.mirage_version) for one in guest.network.values()]
    for device, arguments in zip(guest.network, passed, strict=True):
        if any((match := _KEY.match(arg)) and match["key"] in keys for arg in arguments):
            raise ConfigError(f"network {device}: the address is given in args, too")
    everything = [argument.partition("=")[0] for arguments in passed for argument in arguments]
    if len(set(everything)) < len(everything):
        raise ConfigError(
            f"networks {', '.join(guest.network)} have arguments of the same name",
            "`group` says what the stack of each is called in the image's config.ml",
        )


def refuse_sockets(guest: Guest, target: str) -> None:
    """Raise ConfigError where a guest that has its own devices is to be on the host's sockets."""
    for device, config in guest.network.items():
        if config.network == HOST_NETWORK:
            raise ConfigError(
                f"network {device}: {target} has no sockets of the host's",
                "name a network that [networks] of host.toml has",
            )


def arguments(guest: Guest) -> tuple[str, ...]:
    """Return a guest's arguments: those of its networks, then its own. Raises ConfigError."""
    passed = (addresses(one, guest.mirage_version) for one in guest.network.values())
    return (*chain.from_iterable(passed), *guest.args)


def bare(arguments: Iterable[str]) -> tuple[str, ...]:
    """Return arguments without dashes, as a domain of MirageOS before 3.9 takes them."""
    return tuple(argument.removeprefix("--") for argument in arguments)


def addresses(config: NetworkConfig, version: tuple[int, int]) -> tuple[str, ...]:
    """Return the arguments that tell a guest its addresses, as its version of MirageOS takes them.

    None for what it finds out itself. Raises ConfigError where it cannot be told.
    """
    if not config.interfaces:
        return ()
    if version < (2, 7):
        raise ConfigError(
            f"MirageOS {version[0]}.{version[1]} takes its address when it is configured",
            "say `baked = true`, or with which version the image was built: mirage = '4.0'",
        )
    if version < (3, 10) and any(one.version == 6 for one in config.interfaces):
        raise ConfigError("MirageOS before 3.10 takes no IPv6 address")
    texts = _before_3(config) if version < (3, 0) else _since_3(config, version)
    return tuple(f"--{prefix(config)}{text}" for text in texts)


def prefix(config: NetworkConfig) -> str:
    """Return what the arguments of a network's stack start with, behind the dashes."""
    return f"{config.group}-" if config.group is not None else ""


def names_interface(argument: str) -> bool:
    """Whether an argument says which link of the host a stack uses."""
    match = _KEY.match(argument)
    return match is not None and match["key"].endswith("interface")


def refuse_long(arguments: Iterable[str]) -> None:
    """Raise ConfigError where arguments are more than Solo5 has room for.

    That is its HVT_CMDLINE_SIZE, SPT_CMDLINE_SIZE, and what virtio's platform.c cuts off silently.
    """
    length = len(" ".join(map(quote, arguments)).encode())
    if length > _MOST_BYTES:
        raise ConfigError(f"arguments have {length} bytes: a Solo5 guest takes {_MOST_BYTES}")


def _before_3(config: NetworkConfig) -> list[str]:
    interface = config.interfaces[0]
    gateways = [f"gateways={gateway}" for gateway in config.gateways]
    return [f"ip={interface.ip}", f"netmask={interface.netmask}", *gateways]


def _since_3(config: NetworkConfig, version: tuple[int, int]) -> list[str]:
    families = {interface.version for interface in config.interfaces}
    passed = [f"ipv{one.version}={one.with_prefixlen}" for one in config.interfaces]
    passed += [f"ipv{one.version}-gateway={one}" for one in config.gateways]
    if version >= (3, 10) and len(families) == 1 and config.network != HOST_NETWORK:
        # Otherwise a stack of its own waits for the other family: a second, to the first reply.
        passed.append(f"ipv{families.pop()}-only=true")
    return passed


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


def split(text: str) -> list[str]:
    """Return the arguments in a guest's command line, as MirageOS takes it apart.

    What `quote` has written comes back. A quote that is left open ends with the text
    (mirage/parse-argv). Raises ValueError where a backslash ends it, which MirageOS refuses.
    """
    words, quoted, escaped = [""], "", False
    for char in text:
        if escaped:
            words[-1], escaped = words[-1] + char, False
        elif char == "\\" and quoted != "'":
            escaped = True
        elif char == quoted:
            quoted = ""
        elif not quoted and char in "'\"":
            quoted = char
        elif not quoted and char in _WHITE:
            words.append("")
        else:
            words[-1] += char
    if escaped:
        raise ValueError("a backslash ends it, which escapes nothing")
    return [word for word in words if word]
