#!/usr/bin/env python3
"""A stand-in for xl and xenstore's tools, told by its name, where there is no Xen.

It is called through links in a folder of its own (`installed`), and keeps there what it knows: its
domains (`stand_in_xen`), and the faults that a test wants it to have. What it takes, prints and
ends with is that of Xen 4.17 as Debian has it: tests/xen/inside/test_recorder.py compares the two.
It leaves out what nobody here has asked for yet, and gives its guests no memory.
"""

import ast
import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import stand_in_xen
from stand_in_xen import HOST, HOST_MEMORY, Domain, Folder, Value, Xen

NAMES = ("xl", "xenstore-read", "xenstore-write", "xenstore-ls")

# `xl shutdown -w` waits as long as the guest takes.
_ACKNOWLEDGED_WITHIN = 60.0

_HOST_UUID = "00000000-0000-0000-0000-000000000000"


class Refused(Exception):
    """What xl says on stderr, and what it ends with."""

    def __init__(self, said: str, code: int) -> None:
        super().__init__(said)
        self.said = said
        self.code = code


def installed(folder: Path) -> Path:
    """Have xl and xenstore's tools in a folder that is there; return where xl is."""
    for name in NAMES:
        (folder / name).symlink_to(Path(__file__).resolve())
    return folder / "xl"


def leave(folder: Path) -> None:
    """End every domain of a folder."""
    with Folder(folder).changing() as xen:
        for domain in list(xen.domains):
            stand_in_xen.end(domain)
            xen.remove(domain)


def fail(folder: Path, **faults: dict[str, object]) -> None:
    """Have subcommands fail from now on: `create={"seconds": 5, "code": 1, "says": "..."}`.

    One that has no `code` does its work after `seconds`. `any` is for all that have no fault.
    """
    (folder / "faults.json").write_text(json.dumps(faults))


def main(argv: list[str]) -> int:
    """Do what the name and the arguments say; return the exit code."""
    called = Path(argv[0])
    folder = Folder(called.parent)
    name, arguments = called.name, argv[1:]
    if name == "xl":
        if not arguments:
            print("Usage xl [-vfNtT] <subcommand> [args]", file=sys.stderr)
            return 1
        name, arguments = arguments[0], arguments[1:]
    try:
        _fault(folder, name)
        if name not in _COMMANDS:
            raise Refused(f"command not implemented: {name}", 1)
        return _COMMANDS[name](folder, arguments) or 0
    except Refused as refused:
        print(refused.said, file=sys.stderr)
        return refused.code


def _fault(folder: Folder, name: str) -> None:
    told = folder.path / "faults.json"
    if not told.exists():
        return
    faults = json.loads(told.read_text())
    fault = faults.get(name.replace("-", "_"), faults.get("any", {}))
    time.sleep(fault.get("seconds", 0))
    if "code" in fault:
        raise Refused(fault.get("says", ""), fault["code"])


def _split(arguments: list[str], taking: str = "") -> tuple[dict[str, str], list[str]]:
    """Return the options, those in `taking` with their value, and what is no option."""
    options, rest = {}, []
    words = iter(arguments)
    for word in words:
        if word.startswith("-") and len(word) > 1:
            options[word] = next(words, "") if word.lstrip("-") in taking.split() else ""
        else:
            rest.append(word)
    return options, rest


def _found(xen: Xen, wanted: str) -> Domain:
    domain = xen.find(wanted)
    if domain is None:
        raise Refused(f"{wanted} is an invalid domain identifier (rc=-6)", 1)
    return domain


# Creating.


def _parse(text: str, path: str) -> dict[str, Value]:
    # xl's syntax (xl.cfg(5)) is, for all that is used here, Python's.
    try:
        statements = ast.parse(text).body
        return {
            statement.targets[0].id: ast.literal_eval(statement.value)
            for statement in statements
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", 1)
        raise Refused(
            f"{path}:{line}: config parsing error near `{line}': syntax error\n"
            "Failed to parse config: Invalid argument",
            1,
        ) from None


def _create(folder: Folder, arguments: list[str]) -> None:
    options, rest = _split(arguments, taking="f defconfig")
    if "-q" not in options:
        print(f"Parsing config from {rest[0]}", file=sys.stderr)
    try:
        text = Path(rest[0]).read_text()
    except OSError as error:
        raise Refused(f"Failed to read config file: {rest[0]}: {error.strerror}", 1) from None
    config = _parse("\n".join([text, *rest[1:]]), rest[0])
    for key, what in (("name", "Domain name must be specified."),):
        if key not in config:
            raise Refused(what, 1)
    if "kernel" not in config:
        raise Refused("neither kernel nor bootloader specified", 1)
    with folder.changing() as xen:
        name = str(config["name"])
        if xen.find(name) is not None:
            raise Refused(f"libxl: error: Domain with name \"{name}\" already exists.", 3)
        memory = int(str(config.get("memory", 32)))
        if memory > xen.free_memory:
            raise Refused("failed to free memory for the domain", 3)
        _look_at_kernel(Path(str(config["kernel"])))
        identity = str(config.get("uuid", uuid.uuid4()))
        made = stand_in_xen.create(folder, xen, name, identity, memory, config)
        if "-p" not in options:
            stand_in_xen.resume(made)


def _look_at_kernel(kernel: Path) -> None:
    try:
        start = kernel.read_bytes()[:4]
    except OSError as error:
        raise Refused(f"{kernel}: {error.strerror}", 3) from None
    if start != b"\x7fELF":
        raise Refused("xc_dom_find_loader: no loader found", 3)


# Looking.


def _state(domain: Domain) -> str:
    # r, b, p, s, c, d of xl(1): one that waits for something is blocked.
    crashed = domain.reason == "crash"
    marks = (
        "-",
        "b" if not domain.paused and domain.reason is None else "-",
        "p" if domain.paused else "-",
        "s" if domain.reason else "-",
        "c" if crashed else "-",
        "-",
    )
    return "".join(marks)


def _list(folder: Folder, arguments: list[str]) -> None:
    options, rest = _split(arguments)
    xen = folder.now()
    host = Domain(HOST, "Domain-0", _HOST_UUID, HOST_MEMORY, {}, [], paused=False)
    everybody = [host, *xen.domains]
    shown = [_found(Xen(everybody), rest[0])] if rest else everybody
    if "-l" in options:
        print(json.dumps([_described(domain) for domain in shown], indent=4))
        return
    more = "  UUID                            Reason-Code\tSecurity Label" if "-v" in options else ""
    print(f"Name                                        ID   Mem VCPUs\tState\tTime(s){more}")
    for domain in shown:
        state = "r-----" if domain.domid == HOST else _state(domain)
        print(
            f"{domain.name:<40} {domain.domid:>5} {domain.memory:>5} {1:>5}     {state}"
            f"  {0.1:>6.1f}",
            end="",
        )
        if "-v" in options:
            code = {None: "-", "poweroff": "0", "reboot": "1", "crash": "3"}[domain.reason]
            print(f" {domain.uuid} {code:>11} {'none':>16}", end="")
        print()


def _described(domain: Domain) -> dict[str, object]:
    about = {"type": "pv", "name": domain.name, "uuid": domain.uuid, "run_hotplug_scripts": "True"}
    if domain.domid == HOST:
        return {"domid": HOST, "config": {"c_info": about, "b_info": {}}}
    kernel = {"kernel": domain.config["kernel"], "cmdline": domain.config.get("extra")}
    return {"domid": domain.domid, "config": {"c_info": about, "b_info": kernel}}


def _domid(folder: Folder, arguments: list[str]) -> None:
    domain = next((one for one in folder.now().domains if one.name == arguments[0]), None)
    if domain is None:
        raise Refused(f"Can't get domid of domain name '{arguments[0]}', maybe this domain does "
                      "not exist.", 1)
    print(domain.domid)


def _domname(folder: Folder, arguments: list[str]) -> None:
    print(_found(folder.now(), arguments[0]).name)


def _info(folder: Folder, _: list[str]) -> None:
    print("release                : 6.1.0\nxen_version            : 4.17.5")
    print(f"total_memory           : {stand_in_xen.ALL_MEMORY - 1}")
    print(f"free_memory            : {folder.now().free_memory}")


# Changing.


def _destroy(folder: Folder, arguments: list[str]) -> None:
    with folder.changing() as xen:
        domain = _found(xen, _split(arguments)[1][0])
        stand_in_xen.end(domain)
        xen.remove(domain)


def _rename(folder: Folder, arguments: list[str]) -> None:
    with folder.changing() as xen:
        domain = _found(xen, arguments[0])
        if xen.find(arguments[1]) not in (None, domain):
            raise Refused(f"Can't rename domain '{arguments[0]}'.", 1)
        domain.name = xen.store[f"/local/domain/{domain.domid}/name"] = arguments[1]


def _pause(folder: Folder, arguments: list[str]) -> None:
    with folder.changing() as xen:
        stand_in_xen.pause(_found(xen, arguments[0]))


def _unpause(folder: Folder, arguments: list[str]) -> None:
    with folder.changing() as xen:
        stand_in_xen.resume(_found(xen, arguments[0]))


def _shutdown(folder: Folder, arguments: list[str]) -> None:
    _, rest = _split(arguments)
    with folder.changing() as xen:
        domain = _found(xen, rest[0])
        print(f"Shutting down domain {domain.domid}", file=sys.stderr)
        xen.store[f"/local/domain/{domain.domid}/control/shutdown"] = "poweroff"
        if stand_in_xen.shut_down(domain):
            return
    time.sleep(_ACKNOWLEDGED_WITHIN)
    raise Refused("shutdown failed (rc=-8)", 1)


def _console(folder: Folder, arguments: list[str]) -> None:
    _, rest = _split(arguments)
    domid = _found(folder.now(), rest[0]).domid
    console = folder.console(domid)
    shown = 0
    while True:
        domain = folder.now().find(str(domid))
        over = domain is None or domain.reason is not None
        data = console.read_bytes()[shown:] if console.exists() else b""
        os.write(1, data)
        shown += len(data)
        if over:
            return
        time.sleep(0.02)


# xenstore.


def _read(folder: Folder, arguments: list[str]) -> None:
    store = folder.now().store
    for path in arguments:
        if path not in store:
            raise Refused(f"xenstore-read: couldn't read path {path}", 1)
        print(store[path])


def _write(folder: Folder, arguments: list[str]) -> None:
    with folder.changing() as xen:
        for path, text in zip(arguments[::2], arguments[1::2], strict=True):
            xen.store[path] = text
            _obey(xen, path, text)


def _obey(xen: Xen, path: str, text: str) -> None:
    for domain in xen.domains:
        if path == f"/local/domain/{domain.domid}/control/shutdown" and text:
            stand_in_xen.shut_down(domain)


def _ls(folder: Folder, arguments: list[str]) -> None:
    options, rest = _split(arguments)
    top = (rest or ["/"])[0].rstrip("/")
    store = folder.now().store
    below = {path: text for path, text in sorted(store.items()) if path.startswith(f"{top}/")}
    if not below:
        raise Refused(f"xenstore-ls: could not access path {top}", 1)
    for path, text in below.items():
        print(f'{path if "-f" in options else path.removeprefix(top + "/")} = "{text}"')


_COMMANDS: dict[str, Callable[[Folder, list[str]], int | None]] = {
    "create": _create,
    "destroy": _destroy,
    "domid": _domid,
    "domname": _domname,
    "list": _list,
    "rename": _rename,
    "pause": _pause,
    "unpause": _unpause,
    "shutdown": _shutdown,
    "console": _console,
    "info": _info,
    "xenstore-read": _read,
    "xenstore-write": _write,
    "xenstore-ls": _ls,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv))
