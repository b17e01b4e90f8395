"""What a deployment repository's template of a domain says of a guest: `xl.conf.in`, `NAME.xl.in`.

It is never handed on: what it may say is read into a guest's own terms, and a new configuration is
written from those. What it may leave open is what MirageOS 1 to 4 and their users' scripts do:
`@NAME@`, `@KERNEL@`, `@MEMORY@`, `@DISK@`, `@BLOCK:FILE@` and `@NETWORK:NAME@`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from mirage_hooks.boot import xlsyntax
from mirage_hooks.boot.errors import ConfigError
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.targets import mirage
from mirage_hooks.boot.xlsyntax import PLACEHOLDER, Setting, Unfit

T = TypeVar("T")

# MiB where a template has @MEMORY@: what `mirage configure` itself puts there.
_MEMORY = 256

_TYPES = {"pv": "pv", "pvh": "pvh", "hvm": "hvm", "linux": "pv", "generic": "pv"}
# What a domain is to do at its end is the monitor's, whatever a template says (xl.cfg(5)).
_ENDS = frozenset({"poweroff", "reboot", "watchdog", "crash", "soft_reset"})
_ACTIONS = frozenset(
    {"destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart"}
    | {"soft-reset"}
)
_ACCESS = {"": False, "w": False, "rw": False, "r": True, "ro": True}
# The formats of a disk that is a plain file or device (xl-disk-configuration(5)), and old prefixes.
OPEN_DISK = "@BLOCK:"
_RAW = frozenset({"", "raw"})
_PREFIX = re.compile(r"(?:phy|file|raw|tap:aio|tap2:aio|aio):")


@dataclass(frozen=True)
class Bound:
    """What a host calls what a template may name: networks by bridges, volumes by paths.

    `disks` are the paths of disk images in the repository, by their names in a template.
    """

    networks: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    disks: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def by(cls, host: Host) -> "Bound":
        """Return what a host file has."""
        bridges = {one.bridge: name for name, one in host.networks.items() if one.bridge}
        return cls(bridges, {one.path: name for name, one in host.volumes.items()})


def read(text: str, source: str, guest: str, bound: Bound) -> dict[str, object]:
    """Return a guest's table, as a manifest would have it, from a template.

    Raises ConfigError, with the line, for what it may not say.
    """
    try:
        return _Reading(guest, bound).table(xlsyntax.parse(text))
    except Unfit as error:
        raise ConfigError(f"{source}: {error.message}", error.hint) from None


class _Reading:
    def __init__(self, guest: str, bound: Bound) -> None:
        self._guest = guest
        self._bound = bound

    def table(self, settings: list[Setting]) -> dict[str, object]:
        table: dict[str, object] = {}
        domain: dict[str, object] = {}
        seen: set[str] = set()
        for one in settings:
            if one.key in seen:
                raise Unfit(one.line, f"{one.key} is given more than once")
            seen.add(one.key)
            if one.key == "extra":
                args, form = _arguments(one, self._text(one))
                table |= args
                domain |= form
            elif one.key in {"memory", "vif", "disk"}:
                table |= self._of_guest(one)
            elif one.key in {"name", "vcpus", "type", "builder"}:
                domain |= self._of_domain(one)
            else:
                self._refuse_unknown(one)
        return {**table, **({"domain": domain} if domain else {})}

    def _of_guest(self, setting: Setting) -> dict[str, object]:
        if setting.key == "memory":
            asked = setting.value != "@MEMORY@"
            return {"memory": self._number(setting) if asked else _MEMORY}
        if setting.key == "vif":
            vifs = enumerate(_list(setting))
            return {"network": {f"net{at}": self._vif(setting, vif) for at, vif in vifs}}
        return {"block": dict(self._disk(setting, disk) for disk in _list(setting))}

    def _of_domain(self, setting: Setting) -> dict[str, object]:
        if setting.key == "vcpus":
            return {"vcpus": self._number(setting)}
        text = self._text(setting)
        if setting.key == "name":
            return {"name": text} if text != self._guest else {}
        return {"type": _choice(setting, text, _TYPES)}

    def _refuse_unknown(self, setting: Setting) -> None:
        """Raise Unfit for what is neither the image, nor ours, nor a guest's own devices."""
        key = setting.key
        if key == "kernel":
            if setting.value != "@KERNEL@":
                raise Unfit(setting.line, "kernel has to be '@KERNEL@', the guest's image")
        elif key.startswith("on_") and key[3:] in _ENDS:
            _choice(setting, self._text(setting), dict.fromkeys(_ACTIONS, ""))
        elif key != "@DISK@":
            if PLACEHOLDER.fullmatch(key):
                raise _unknown(setting.line, key)
            raise Unfit(setting.line, f"{key} is no setting that a template may have here")

    def _text(self, setting: Setting) -> str:
        if not isinstance(setting.value, str):
            raise Unfit(setting.line, f"{setting.key} is no list")
        return self._named(setting.line, setting.value)

    def _named(self, line: int, text: str) -> str:
        """Return a text with the guest's name in its place, and no other placeholder."""
        text = text.replace("@NAME@", self._guest)
        if (left := PLACEHOLDER.search(text)) is not None:
            raise _unknown(line, left[0])
        return text

    def _number(self, setting: Setting) -> int:
        text = self._text(setting)
        if not re.fullmatch("[0-9]{1,9}", text):
            raise Unfit(setting.line, f"{setting.key} {text!r} is no number")
        return int(text)

    def _vif(self, setting: Setting, text: str) -> dict[str, object]:
        line, found = setting.line, {"bridge": "xenbr0"}  # xl-network-configuration(5)
        for part in filter(None, re.split(r"\s*,\s*", text.strip())):
            key, equals, value = part.partition("=")
            if key == "script":
                hint = "[networks.NAME] of host.toml can have `script`"
                raise Unfit(line, "vif: the host says which script attaches it", hint)
            if not equals or key not in {"bridge", "mac"}:
                raise Unfit(line, f"vif: {part!r} is nothing that a template may say here")
            found[key] = value
        bridge = found.pop("bridge")
        open_name = PLACEHOLDER.fullmatch(bridge)
        if open_name is not None and open_name[1] == "NETWORK" and open_name[2]:
            network = open_name[2]
        else:
            bridge = self._named(line, bridge)
            network = self._bound.networks.get(bridge, bridge)
        return {"network": network, "baked": True, **found}

    def _disk(self, setting: Setting, text: str) -> tuple[str, dict[str, object]]:
        """Return a disk's name in the guest, and its table."""
        line, found = setting.line, _disk_parts(setting.line, text)
        if found.get("format", "") not in _RAW:
            raise Unfit(line, f"disk: format {found['format']!r} is none that a guest gets here")
        if not found.get("vdev") or not found.get("target"):
            raise Unfit(line, f"disk: {text!r} names no target, or no vdev")
        readonly = _choice(setting, found.get("access", ""), _ACCESS)
        target = found["target"]
        open_name = PLACEHOLDER.fullmatch(target)
        if open_name is not None and open_name[1] == "BLOCK" and open_name[2]:
            volume = open_name[2]
            if volume in self._bound.disks and volume not in self._bound.volumes.values():
                return found["vdev"], {"image": self._bound.disks[volume]}
        elif (path := self._named(line, target)) in self._bound.volumes:
            volume = self._bound.volumes[path]
        else:
            hint = f'[volumes.NAME] of host.toml with path = "{path}" lets guests have it'
            raise Unfit(line, f"disk: {path} is no volume of this host", hint)
        return found["vdev"], {"volume": volume, "readonly": readonly}


def _disk_parts(line: int, text: str) -> dict[str, str]:
    """Return what a disk is made of, told by names or by places (xl-disk-configuration(5))."""
    places = ["target", "format", "vdev", "access"]
    found: dict[str, str] = {}
    rest = text.strip()
    while rest:
        if match := re.match(r"target=(.*)", rest):  # takes all that follows
            return {**found, "target": match[1]}
        part, _, rest = (one.strip() for one in rest.partition(","))
        key, equals, value = part.partition("=")
        if equals and key in {"format", "vdev", "access"}:
            found[key] = value
        elif equals or not places:
            raise Unfit(line, f"disk: {part!r} is nothing that a template may say here")
        else:
            place = places.pop(0)
            if place == "target" and (prefix := _PREFIX.match(part)):
                part = part[prefix.end() :]
                places.remove("format")
            found[place] = part
    return found


def _arguments(setting: Setting, extra: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return a guest's arguments, and which form they have in `extra`; neither where it has none.

    Images of MirageOS 3 take `key=value`. They are written here as later ones have them.
    """
    try:
        words = mirage.split(extra)
    except ValueError as error:
        raise Unfit(setting.line, f"extra: {error}") from None
    if not words:
        return {}, {}
    if any(word.startswith("-") for word in words):
        return {"args": words}, {"arguments": "dashed"}
    return {"args": [f"--{word}" for word in words]}, {"arguments": "bare"}


def _list(setting: Setting) -> tuple[str, ...]:
    if isinstance(setting.value, str):
        raise Unfit(setting.line, f"{setting.key} is a list: write it in brackets")
    return setting.value


def _choice(setting: Setting, value: str, known: Mapping[str, T]) -> T:
    if value not in known:
        raise Unfit(setting.line, f"{setting.key}: {value!r} is not known here")
    return known[value]


def _unknown(line: int, placeholder: str) -> Unfit:
    return Unfit(
        line,
        f"{placeholder} is no placeholder here",
        "known are @NAME@, @KERNEL@, @MEMORY@, @DISK@, @BLOCK:FILE@ and @NETWORK:NAME@, each in "
        "its place",
    )
