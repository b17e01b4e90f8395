"""`mirage-hooks doctor`: what breaks silently, and how to mend it."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import click

from mirage_hooks.boot import (
    description,
    host,
    manifest,
    notify,
    ownership,
    secrets,
    survey,
    systemd,
)
from mirage_hooks.boot.errors import Error
from mirage_hooks.boot.generation import Phase
from mirage_hooks.boot.guest import Guest
from mirage_hooks.boot.host import Host
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.users import user_name
from mirage_hooks.installer import hookfile, hostfile, placing, pollfile, schedule
from mirage_hooks.installer.commands import context as shared
from mirage_hooks.installer.commands import doctor_devices
from mirage_hooks.installer.findings import Finding
from mirage_hooks.installer.output import print_json, print_table
from mirage_hooks.installer.placing import Kind, Place

_LOW_DISK_BYTES = 512 << 20
_INSTALL = "run: mirage-hooks install"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> int:
    """Look for what breaks silently, and say how to mend it. Ends with 1 if something is broken."""
    findings = list(examine(shared.repository(context)))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [[one.level, one.subject, one.finding, one.mend] for one in findings]
        print_table(["level", "subject", "finding", "mend"], rows)
    return int(any(finding.level == "failed" for finding in findings))


def examine(repository: Repository) -> Iterator[Finding]:
    """Yield what is found about an installation."""
    state = State(repository.common_dir)
    try:  # git obeys them: nothing more is asked of it here
        ownership.refuse_foreign(repository.obeyed)
    except Error as error:
        yield Finding.of("git folder", error)
        return
    yield _owner(state)
    try:
        hooks = placing.hooks_folder(repository)
        yield _hooks_path(repository, hooks)
    except Error as error:
        hooks = repository.common_dir / "hooks"
        yield Finding.of("core.hooksPath", error)
    for hook in hookfile.HOOKS:
        place = Place(hooks, hook, state.folder)
        yield _dropped(hook, place.ours, place.render)
    yield from _poll_script(state)
    yield from _pause(state)
    yield from _host_file(repository, state)
    yield _disk(state)
    yield from _polls(repository)
    yield from _monitors(state)


def _owner(state: State) -> Finding:
    try:
        state.check_access()
    except Error as error:
        return Finding.of("state folder", error)
    if not state.folder.exists():
        return Finding("failed", "state folder", f"{state.folder} does not exist", _INSTALL)
    return Finding("ok", "state folder", f"{state.folder} is ours")


def _hooks_path(repository: Repository, hooks: Path) -> Finding:
    """A relative path starts where git runs hooks: the work tree for a pull, the git dir else."""
    _, path = repository.hooks_path() or ("", str(hooks))
    if repository.git.bare or path.startswith(("/", "~", "%")):
        return Finding("ok", "core.hooksPath", f"git takes hooks from {hooks}")
    return Finding(
        "warning",
        "core.hooksPath",
        f"{path} is relative: a push, or a pull in another worktree, finds no hook",
        f"git config core.hooksPath {shlex.quote(str(hooks))}",
    )


def _dropped(hook: str, path: Path, render: Callable[[str], bytes]) -> Finding:
    """git says nothing of a missing hook or a dangling link, and little of one it cannot run."""
    if path.is_symlink() and not path.exists():
        return Finding("failed", hook, f"{path} is a dangling link", f"remove it, then {_INSTALL}")
    if not path.exists():
        return Finding("failed", hook, f"{path} is missing", _INSTALL)
    if placing.kind(path) is not Kind.OURS:
        return Finding("failed", hook, f"{path} is somebody else's", f"{_INSTALL}: it keeps theirs")
    if not os.access(path, os.X_OK):
        return Finding(
            "failed", hook, f"{path} is not executable", f"chmod +x {shlex.quote(str(path))}"
        )
    return _interpreter(hook, path, render)


def _interpreter(hook: str, path: Path, render: Callable[[str], bytes]) -> Finding:
    python = hookfile.interpreter(path)
    mend = "install mirage-hooks again, then run: mirage-hooks install"
    if python is None:
        return Finding("failed", hook, f"{path} names no interpreter", _INSTALL)
    if not os.access(python, os.X_OK):
        return Finding("failed", hook, f"its interpreter {python} is gone", mend)
    if (reason := hookfile.probe(python)) is not None:
        return Finding("failed", hook, f"{python} cannot load mirage-hooks: {reason}", mend)
    if path.read_bytes() != render(python):
        return Finding("warning", hook, "dropped by another version", _INSTALL)
    if python != sys.executable:
        return Finding("ok", hook, f"in place; it runs {python}, this command {sys.executable}")
    return Finding("ok", hook, "in place")


def _poll_script(state: State) -> Iterator[Finding]:
    try:
        yield _dropped("poll script", state.poll, pollfile.render)
    except OSError:
        return  # somebody else's: that was found already


def _pause(state: State) -> Iterator[Finding]:
    try:
        pause = state.pause()
    except OSError:
        return  # somebody else's: that was found already
    except Error as error:
        yield Finding.of("pause", error)
        return
    if pause is not None:
        yield Finding("warning", "pause", f"{pause}: pulls deploy nothing", "mirage-hooks resume")


def _host_file(repository: Repository, state: State) -> Iterator[Finding]:
    try:
        bound, _ = host.load(state.host_file)
        tip = repository.tip(bound.branch)
    except Error as error:
        yield Finding.of(host.NAME, error)
        return
    yield Finding("ok", host.NAME, f"{bound.branch} deploys")
    yield from _notify(bound)
    head = repository.head_branch()
    if not repository.git.bare and head != bound.branch:
        yield Finding(
            "warning",
            "branch",
            f"{head or 'a detached HEAD'} is checked out: pulls of it deploy nothing",
            f"git checkout {bound.branch}"
            + (f", or: mirage-hooks install --branch {head}" if head else ""),
        )
    if not repository.git.bare and repository.behind(bound.branch) is None:
        yield Finding(
            "warning",
            "upstream",
            f"{bound.branch} has no upstream to pull from",
            f"git branch --set-upstream-to=origin/{bound.branch} {bound.branch}",
        )
    try:
        guests = manifest.read_guests(tip, bound)
    except Error as error:
        yield Finding.of("guests", error)
        yield from doctor_devices.examine(state, bound, {})
        return
    try:
        for found in hostfile.unbound(tip, bound).guests:
            yield Finding(
                "warning",
                "guests",
                f"{found.where} is the image of no guest here",
                hostfile.how_to_take(found, bound),
            )
    except Error as error:
        yield Finding.of("guests", error)
    yield from _unknown(bound, guests)
    yield from _secrets(bound, guests)
    yield from doctor_devices.examine(state, bound, guests)
    if guests:
        yield Finding("ok", "guests", ", ".join(guests))
    elif bound.guests == ():
        yield Finding("ok", "guests", f"none is to run here: guests = [] in {host.NAME}")
    else:
        yield Finding(
            "warning",
            "guests",
            "none is described",
            f"commit a {description.NAME}, or name guests: mirage-hooks install --help",
        )


def _notify(bound: Host) -> Iterator[Finding]:
    if command := bound.notify.command:
        try:
            notify.refuse_unfit(command)
        except Error as error:
            yield Finding.of("notify", error)
        else:
            yield Finding("ok", "notify", f"{command[0]} is told how things come out")


def _unknown(bound: Host, guests: dict[str, Guest]) -> Iterator[Finding]:
    """What the host file says of a guest that is not there has no effect: a slip of the pen?"""
    for name in bound.guests or ():
        if name not in guests:
            text = f"{name} is chosen, but the repository has no such guest"
            yield Finding(
                "warning", f"guest {name}", text, f"take it out of `guests` in {host.NAME}"
            )
    for name in bound.secrets:
        if name not in guests:
            text = f"no guest {name} is to run here"
            mend = f"take [secrets.{name}] out of {host.NAME}"
            yield Finding("warning", f"secrets of {name}", text, mend)


def _secrets(bound: Host, guests: dict[str, Guest]) -> Iterator[Finding]:
    for name in sorted(guests.keys() & bound.secrets.keys()):
        path = bound.secrets[name].args_file
        try:
            secrets.load(path)
        except Error as error:
            yield Finding.of(f"secrets of {name}", error)
        else:
            yield Finding("ok", f"secrets of {name}", f"{path} can be read by us alone")


def _disk(state: State) -> Finding:
    folder = state.folder if state.folder.exists() else state.folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free >> 20} MiB free for unpacked images in {folder}"
    if free < _LOW_DISK_BYTES:
        return Finding("warning", "disk", text, "free some space there")
    return Finding("ok", "disk", text)


def _polls(repository: Repository) -> Iterator[Finding]:
    try:
        yield from schedule.examine(repository)
    except Error as error:
        yield Finding.of("poll", error)


def _monitors(state: State) -> Iterator[Finding]:
    """A monitor that is in no scope of its own may be killed when something else ends."""
    try:
        names = state.guest_names()
    except OSError:
        return  # somebody else's: that was found already
    for name in names:
        try:
            known = survey.look(state, name)
            monitor = state.monitor_state(known.live) if known.live is not None else None
        except Error as error:
            yield Finding.of(f"records of {name}", error)
            continue
        if monitor is None:
            if known.last is not None and known.last.phase is Phase.HEALTHY and not known.intent:
                text = known.given_up or "it was not stopped, but it does not run"
                yield Finding("failed", f"guest {name}", text, f"run: mirage-hooks reboot {name}")
            continue
        unit = systemd.mortal_unit(monitor.monitor.pid)
        if unit is None:
            yield Finding("ok", f"monitor of {name}", f"pid {monitor.monitor.pid}")
        else:
            user = (
                "" if os.geteuid() == 0 else f"loginctl enable-linger {user_name(os.geteuid())}; "
            )
            yield Finding(
                "warning",
                f"monitor of {name}",
                f"it is in {unit}: the guest may be killed when that ends",
                f"{user}mirage-hooks reboot {name}: under systemd that gives it a scope of its own",
            )
