"""What the stand-in for xl does when it creates a domain: how it reads, and what it refuses.

The words are those of Xen 4.17 (`tests/xen/inside/test_recorder.py`).
"""

import ast
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import stand_in_xen
from stand_in_xen import Domain, Folder, Value, Xen


class RefusedError(Exception):
    """What xl says on stderr, and what it ends with."""

    def __init__(self, said: str, code: int) -> None:
        super().__init__(said)
        self.said = said
        self.code = code


def parse(text: str, path: str) -> dict[str, Value]:
    """Return what a configuration sets. Raises RefusedError where it cannot be read."""
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
        near = text.splitlines()[line - 1].partition("=")[2]
        raise RefusedError(
            f"{path}:{line}: config parsing error near `{near}': lexical error\n"
            "Failed to parse config: Invalid argument",
            1,
        ) from None


def make(folder: Folder, xen: Xen, config: dict[str, Value], *, concluding: bool) -> Domain:
    """Have a domain as its configuration says. Raises RefusedError where xl would not."""
    name, domid = str(config["name"]), xen.next
    # A number is spent on a domain that comes to nothing, too.
    xen.next += 1
    if xen.named(name) is not None:
        raise _libxl(
            domid,
            f'libxl_domain.c:81:libxl__domain_rename: Domain {{}}:Domain with name "{name}" already'
            " exists.",
            "libxl_create.c:1296:initiate_domain_create: Domain {}:cannot make domain: -6",
        )
    _look_at_kernel(Path(str(config["kernel"])), domid)
    memory = int(str(config.get("memory", stand_in_xen.DEFAULT_MEMORY)))
    if memory > xen.free_memory:
        raise _libxl(
            domid,
            "xc: error: panic: xg_dom_boot.c:119: xc_dom_boot_mem_init: can't allocate low memory"
            " for domain: Out of memory",
            "libxl_dom.c:586:libxl__build_dom: xc_dom_boot_mem_init failed: Cannot allocate memory",
            _NOT_BUILT,
        )
    for bridge in stand_in_xen.bridges(config):
        if not Path("/sys/class/net", bridge, "bridge").is_dir():
            script = (
                "libxl_device.c:1337:device_hotplug_child_death_cb: script: Could not find bridge"
                f" device {bridge}"
            )
            not_added = (
                "libxl_create.c:1921:domcreate_attach_devices: Domain {}:unable to add vif devices"
            )
            # Once when it is brought up, and once when it is taken down.
            raise _libxl(domid, script, not_added, script)
    _refuse_torn(xen, config, domid)
    made = Domain(domid, name, _identity(config), memory, config)
    return stand_in_xen.create(folder, xen, made, concluding=concluding)


def _refuse_torn(xen: Xen, config: dict[str, Value], domid: int) -> None:
    """Refuse a disk that another domain has, where one of the two writes to it.

    So xl does with block devices. Its script (etc/xen/scripts/block of 4.17) means to with files,
    too, and finds none in use: it looks for a hexadecimal number where losetup prints a decimal.
    """
    theirs = [disk for other in xen.domains for disk in _disks(other.config)]
    for path, writes in _disks(config):
        mode = "" if writes else " read-only"
        if any(path == other and (writes or wrote) for other, wrote in theirs):
            raise _libxl(
                domid,
                f"libxl_device.c:1337:device_hotplug_child_death_cb: script: Device {path} is"
                f" mounted{mode and ' read-write'} in a guest domain,\nand so cannot be mounted"
                f"{mode} now.",
                "libxl_create.c:1672:domcreate_launch_dm: Domain {}:unable to add disk devices",
            )


def _disks(config: dict[str, Value]) -> Iterator[tuple[str, bool]]:
    """Yield the files behind a domain's disks, and whether it may write to each."""
    for disk in stand_in_xen.texts(config.get("disk")):
        how, _, path = disk.rpartition(",target=")
        yield os.path.realpath(path), "access=rw" in how


def half_made(xen: Xen, config: dict[str, Value]) -> Domain:
    """Have a domain as it is while xl makes it, and stays where that xl is killed."""
    half = Domain(xen.next, str(config["name"]), _identity(config), 0, config)
    xen.next += 1
    xen.domains.append(half)
    return half


def _identity(config: dict[str, Value]) -> str:
    return str(config.get("uuid", uuid.uuid4()))


_NOT_BUILT = "libxl_create.c:1640:domcreate_rebuild_done: Domain {}:cannot (re-)build domain: -3"


def _look_at_kernel(kernel: Path, domid: int) -> None:
    try:
        start = kernel.read_bytes()[:4]
    except OSError as error:
        raise _libxl(
            domid,
            f"xc: error: panic: xg_dom_core.c:205: failed to open file '{kernel}':"
            f" {error.strerror}: Internal error",
            f"libxl_dom.c:646:libxl__build_pv: xc_dom_kernel_file failed: {error.strerror}",
            _NOT_BUILT,
        ) from None
    if start != b"\x7fELF":
        raise _libxl(
            domid,
            "xc: error: panic: xg_dom_core.c:689: xc_dom_find_loader: no loader found: Invalid"
            " kernel",
            "libxl_dom.c:571:libxl__build_dom: xc_dom_parse_image failed",
            _NOT_BUILT,
        )


def _libxl(domid: int, *said: str) -> RefusedError:
    """Return what libxl says of a domain that it could not make, and took away again."""
    gone = (
        "libxl_domain.c:1183:libxl__destroy_domid: Domain {}:Non-existant domain",
        "libxl_domain.c:1137:domain_destroy_callback: Domain {}:Unable to destroy guest",
        "libxl_domain.c:1064:domain_destroy_cb: Domain {}:Destruction of domain failed",
    )
    lines = [line if line.startswith("xc:") else f"libxl: error: {line}" for line in (*said, *gone)]
    return RefusedError("\n".join(line.format(domid) for line in lines), 3)
