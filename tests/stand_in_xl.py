#!/usr/bin/env python3
"""A stand-in for xl and xenstore's tools, told by its name, where there is no Xen.

It is called through links in a folder of its own (`installed`), and keeps there what it knows: its
domains (`stand_in_xen`), and the faults that a test wants it to have. What it takes, prints and
ends with is that of Xen 4.17 as Debian has it: tests/xen/inside/test_recorder.py compares the two.
It leaves out what nobody here has asked for yet, and gives its guests no memory.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import stand_in_xen
import stand_in_xl_create
from stand_in_xen import HOST, HOST_MEMORY, Domain, Folder, Value, Xen
from stand_in_xl_create import RefusedError

NAMES = ("xl", "xenstore-read", "xenstore-write", "xenstore-ls")

# `xl shutdown -w` waits as long as the guest takes.
_ACKNOWLEDGED_WITHIN = 60.0

_THE_HOST = Domain(
    HOST, "Domain-0", "00000000-0000-0000-0000-000000000000", HOST_MEMORY, {}, paused=0
)

# What takes a domain, or a file, and ends with 2 where it is not given one.
_TAKING = {
    "create",
    "destroy",
    "domid",
    "domname",
    "rename",
    "pause",
    "unpause",
    "shutdown",
    "console",
}


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

    One that has no `code` does its work after `seconds`. `any` is for all that have no fault. With
    `midway` a domain is half made for so many seconds: for good where xl is killed meanwhile.
    """
    (folder / "faults.json").write_text(json.dumps(faults))


def main(argv: list[str]) -> int:
    """Do what the name and the arguments say; return the exit code."""
    called = Path(argv[0])
    folder = Folder(called.parent)
    name, arguments = called.name, argv[1:]
    if name == "xl":
        if not arguments:
            print("Usage xl [-vfNtT] <subcommand> [args]")
            return 1
        name, arguments = arguments[0], arguments[1:]
    try:
        _fail(_fault(folder, name))
        if name not in _COMMANDS:
            raise RefusedError("command not implemented", 1)
        if name in _TAKING and not _split(arguments)[1]:
            raise RefusedError(f"'xl {name}' requires at least 1 argument.\n", 2)
        _COMMANDS[name](folder, arguments)
        return 0
    except RefusedError as refused:
        print(refused.said, file=sys.stderr)
        return refused.code


def _fault(folder: Folder, name: str) -> dict[str, Any]:
    told = folder.path / "faults.json"
    faults: dict[str, dict[str, Any]] = json.loads(told.read_text()) if told.exists() else {}
    return faults.get(name.replace("-", "_"), faults.get("any", {}))


def _fail(fault: dict[str, Any]) -> None:
    time.sleep(fault.get("seconds", 0))
    if "code" in fault:
        raise RefusedError(fault.get("says", ""), fault["code"])


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
        raise RefusedError(f"{wanted} is an invalid domain identifier (rc=-6)", 1)
    return domain


# Creating.


def _create(folder: Folder, arguments: list[str]) -> None:
    options, rest = _split(arguments, taking="f defconfig")
    try:
        text = Path(rest[0]).read_text()
    except OSError as error:
        raise RefusedError(f"Failed to read config file: {rest[0]}: {error.strerror}", 3) from None
    if "-q" not in options:
        print(f"Parsing config from {rest[0]}", file=sys.stderr)
    config = stand_in_xl_create.parse("\n".join([text, *rest[1:]]), rest[0])
    if "name" not in config:
        raise RefusedError("Domain name must be specified.", 1)
    if "kernel" not in config:
        raise RefusedError("Neither kernel nor bootloader specified", 1)
    if seconds := _fault(folder, "create").get("midway"):
        _dawdle(folder, config, seconds)
    with folder.changing() as xen:
        made = stand_in_xl_create.make(folder, xen, config, concluding="-F" not in options)
        if "-p" not in options:
            stand_in_xen.resume(made)
    if "-F" in options:
        _stay(folder, made)


def _dawdle(folder: Folder, config: dict[str, Value], seconds: float) -> None:
    """Have a domain that has neither memory nor processors yet for some time."""
    with folder.changing() as xen:
        half = stand_in_xl_create.half_made(xen, config)
    time.sleep(seconds)
    with folder.changing() as xen:
        xen.remove(_found(xen, str(half.domid)))


def _stay(folder: Folder, domain: Domain) -> None:
    here = f"Domain {domain.domid}"
    print(
        f"Waiting for domain {domain.name} (domid {domain.domid}) to die [pid {os.getpid()}]",
        file=sys.stderr,
        flush=True,
    )
    while (found := folder.now().numbered(str(domain.domid))) is not None and not found.reason:
        time.sleep(0.02)
    with folder.changing() as xen:
        found = xen.numbered(str(domain.domid))
        if found is None or found.reason is None:
            print(f"{here} has been destroyed.", file=sys.stderr)
            return
        code = stand_in_xen.REASONS[found.reason]
        action = stand_in_xen.conclude(folder, xen, found)
    said = [
        f"{here} has shut down, reason code {code} 0x{code}",
        f"Action for shutdown reason code {code} is {action}",
    ]
    if action == "destroy":
        said.append(f"{here} needs to be cleaned up: destroying the domain")
    print("\n".join([*said, "Done. Exiting now"]), file=sys.stderr)


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
    everybody = [_THE_HOST, *folder.now().domains]
    if rest and rest[0].isdigit() and Xen(everybody).find(rest[0]) is None:
        raise RefusedError(f"Error: Domain '{rest[0]}' does not exist.", 1)
    shown = [_found(Xen(everybody), rest[0])] if rest else everybody
    if "-l" in options:
        print(json.dumps([_described(domain) for domain in shown], indent=4))
        return
    more = (
        "   UUID                            Reason-Code\tSecurity Label" if "-v" in options else ""
    )
    print(f"{'Name':<40}    ID   Mem VCPUs\tState\tTime(s){more}")
    for domain in shown:
        state = "r-----" if domain.domid == HOST else _state(domain)
        numbers = f"{domain.domid:>5} {domain.memory:>5} {1 if domain.memory else 0:>5}"
        line = f"{domain.name:<40} {numbers}     {state}  {0.1:>8.1f}"
        if "-v" in options:
            code = stand_in_xen.REASONS.get(domain.reason or "", "-")
            line += f" {domain.uuid} {code:>8} {'-':>16}"
        print(line)


def _described(domain: Domain) -> dict[str, object]:
    about = {"type": "pv", "name": domain.name, "uuid": domain.uuid, "run_hotplug_scripts": "True"}
    if domain.domid == HOST:
        return {"domid": HOST, "config": {"c_info": about, "b_info": {}}}
    kernel = {"kernel": domain.config["kernel"], "cmdline": domain.config.get("extra")}
    nothing = 2**32 - 1  # where a person would look for it, the number is never filled in
    return {
        "domid": domain.domid,
        "config": {"c_info": {**about, "domid": nothing}, "b_info": kernel},
    }


def _domid(folder: Folder, arguments: list[str]) -> None:
    domain = folder.now().named(arguments[0])
    if domain is None:
        raise RefusedError(
            f"Can't get domid of domain name '{arguments[0]}', maybe this domain does not exist.", 1
        )
    print(domain.domid)


def _domname(folder: Folder, arguments: list[str]) -> None:
    domain = folder.now().numbered(arguments[0])
    if domain is None:
        raise RefusedError(
            f"Can't get domain name of domain id '{arguments[0]}', maybe this domain does not"
            " exist.",
            1,
        )
    print(domain.name)


def _info(folder: Folder, _: list[str]) -> None:
    print("release                : 6.1.0\nxen_version            : 4.17.5")
    print(f"total_memory           : {stand_in_xen.ALL_MEMORY - 1}")
    print(f"free_memory            : {folder.now().free_memory}")


# Changing.


def _destroy(folder: Folder, arguments: list[str]) -> None:
    wanted = _split(arguments)[1][0]
    if wanted in ("0", _THE_HOST.name):
        raise RefusedError("Not destroying domain 0; use -f to force.", 1)
    with folder.changing() as xen:
        domain = _found(xen, wanted)
        stand_in_xen.end(domain)
        xen.remove(domain)


def _rename(folder: Folder, arguments: list[str]) -> None:
    with folder.changing() as xen:
        domain = _found(xen, arguments[0])
        if xen.find(arguments[1]) not in (None, domain):
            raise RefusedError(f"Can't rename domain '{arguments[0]}'.", 1)
        domain.name = arguments[1]
        for path in (f"/local/domain/{domain.domid}/name", f"/vm/{domain.uuid}/name"):
            xen.store[path] = domain.name


def _pause(folder: Folder, arguments: list[str]) -> None:
    with folder.changing() as xen:
        stand_in_xen.pause(_found(xen, arguments[0]))


# Said of a domain that runs: xl ends with 0 all the same.
_UNPAUSED = "libxl: error: libxl_domain.c:688:domain_unpause_done: Domain {}:Unpausing domain"


def _unpause(folder: Folder, arguments: list[str]) -> None:
    with folder.changing() as xen:
        domain = _found(xen, arguments[0])
        if not domain.paused:
            print(f"{_UNPAUSED.format(domain.domid)}: Invalid argument", file=sys.stderr)
        stand_in_xen.resume(domain)


def _shutdown(folder: Folder, arguments: list[str]) -> None:
    _, rest = _split(arguments)
    with folder.changing() as xen:
        domain = _found(xen, rest[0])
        print(f"Shutting down domain {domain.domid}", file=sys.stderr)
        xen.store[f"/local/domain/{domain.domid}/control/shutdown"] = "poweroff"
        if stand_in_xen.shut_down(domain):
            return
    time.sleep(_ACKNOWLEDGED_WITHIN)
    raise RefusedError(
        "libxl: error: libxl_domain.c:854:pvcontrol_cb: guest didn't acknowledge control request:"
        " -9\nshutdown failed (rc=-9)",
        1,
    )


def _console(folder: Folder, arguments: list[str]) -> None:
    _, rest = _split(arguments)
    domid = _found(folder.now(), rest[0]).domid
    console = folder.console(domid)
    shown = 0
    while True:
        domain = folder.now().numbered(str(domid))
        # One that has stopped and is preserved keeps xl waiting.
        over = domain is None
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
            raise RefusedError(f"xenstore-read: couldn't read path {path}", 1)
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
        raise RefusedError(f"xenstore-ls: xs_directory ({top}): No such file or directory", 1)
    for path, text in below.items():
        print(f'{path if "-f" in options else path.removeprefix(top + "/")} = "{text}"')


_COMMANDS: dict[str, Callable[[Folder, list[str]], None]] = {
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
