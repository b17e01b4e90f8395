"""`mirage-hooks install` and `uninstall`: what is put into a repository, and taken out again."""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mirage_hooks.boot import (
    control,
    domains,
    host,
    lock,
    ownership,
    pins,
    runtime,
    survey,
    wiring,
)
from mirage_hooks.boot.errors import ConfigError, Error, HostError, RepositoryError
from mirage_hooks.boot.record import State
from mirage_hooks.boot.repository import Repository
from mirage_hooks.boot.switch import end
from mirage_hooks.installer import hookfile, hostfile, placing, pollfile, schedule
from mirage_hooks.installer.hostfile import GuestOption
from mirage_hooks.installer.placing import Place

_HID_PINS = "hid-pins"


@dataclass(frozen=True)
class Installed:
    """What an installation did, a line each, which branch it deploys, and what runs already."""

    branch: str
    lines: list[str]
    running: list[str]


def install(
    repository: Repository, branch: str | None, user: str | None, guests: list[GuestOption]
) -> Installed:
    """Put the hooks and the host file into a repository; repair and upgrade what is there.

    Raises ConfigError, HostError, RepositoryError; then nothing was changed.
    """
    state = State(repository.common_dir)
    _refuse_unfit(repository)
    state.check_access()
    file = hostfile.compose(repository, state, branch, user, guests)
    hooks = placing.hooks_folder(repository)
    ownership.refuse_foreign([hooks])
    places = _places(hooks, state)
    texts = [place.render(sys.executable) for place in places]
    poll = pollfile.render(sys.executable)
    if (reason := hookfile.probe(sys.executable)) is not None:
        raise HostError(
            f"{sys.executable} cannot load mirage-hooks the way a hook does: {reason}",
            "install mirage-hooks into an environment of its own (python3 -m venv), not --user",
        )
    for place in places:
        place.refuse_unclear()
    lines: list[str] = []
    try:
        state.folder.mkdir(mode=0o700, exist_ok=True)
        state.store.mkdir(mode=0o700, exist_ok=True)
        with lock.hold(state.lock, "install", lambda holder: lines.append(f"waited for {holder}")):
            if not hooks.exists():
                hooks.mkdir()
                (state.folder / "made-hooks-folder").write_bytes(os.fsencode(hooks))
            lines += [place.drop(text) for place, text in zip(places, texts, strict=True)]
            lines.append(placing.write(state.poll, poll, 0o700))
            lines.append(placing.write(state.host_file, file.text.encode(), 0o600))
            state.trigger.touch(mode=0o600)
            lines.extend(_hide_pins(repository, state))
    except OSError as error:
        raise HostError(f"{error.filename}: {error.strerror}") from None
    return Installed(file.branch, [*lines, *file.lines], running_guests(state))


def _places(hooks: Path, state: State) -> list[Place]:
    return [Place(hooks, hook, state.folder) for hook in hookfile.HOOKS]


def _refuse_unfit(repository: Repository) -> None:
    if ".git/modules/" in str(repository.common_dir):
        raise RepositoryError(
            f"{repository.name} is a submodule: git runs no hook there that could deploy",
            "install into a clone of its own",
        )
    ownership.refuse_foreign(repository.obeyed)


def refuse_running(repository: Repository, decided: bool) -> None:
    """Raise ConfigError while guests run, unless it was `decided` what becomes of them.

    Raises RepositoryError where nothing is installed.
    """
    state = State(repository.common_dir)
    if not state.folder.exists():
        raise RepositoryError(f"not installed in {repository.name}")
    state.check_access()
    ownership.refuse_foreign(repository.obeyed)
    running = running_guests(state)
    if running and not decided:
        raise ConfigError(
            f"guests are running: {', '.join(running)}",
            "end them with --stop, or go on without them looked after: --leave-running",
        )


def uninstall(
    repository: Repository, stop: bool, leave_running: bool, keep_state: bool
) -> list[str]:
    """Take out what `install` put in; return what was done, a line each.

    Raises ConfigError while guests run and neither `stop` nor `leave_running` is given.
    """
    state = State(repository.common_dir)
    lines: list[str] = []
    with lock.hold(state.lock, "uninstall", lambda holder: lines.append(f"waited for {holder}")):
        refuse_running(repository, stop or leave_running)
        running = running_guests(state)
        lines.extend(schedule.remove(repository))
        folders = {repository.common_dir / "hooks", repository.hooks_folder()}
        for folder in sorted(folders):
            for place in _places(folder, state):
                lines.extend(place.take_out())
        state.poll.unlink(missing_ok=True)
        if stop:
            lines.extend(_stop_all(state, running))
        if running and leave_running:
            lines.append(f"{', '.join(running)}: left running; their state stays in {state.folder}")
            return lines
        lines.extend(_remove_domains(state))
        lines.extend(wiring.remove(state))
        if keep_state:
            lines.append(f"{state.folder}: kept")
            return lines
        with contextlib.suppress(OSError):  # it was there, or somebody else's hook is in it by now
            Path(os.fsdecode((state.folder / "made-hooks-folder").read_bytes())).rmdir()
        runtime.remove(repository.common_dir)
        pins.remove(repository)
        lines += [f"{ref}: kept: commits that no upstream had" for ref in pins.backups(repository)]
        lines.extend(_show_pins(repository, state))
        state.remove()
        state.trigger.unlink(missing_ok=True)
        lines.append(f"{state.folder}: removed")
    return lines


def _hide_pins(repository: Repository, state: State) -> list[str]:
    if not pins.hide(repository, state.folder / _HID_PINS):
        return []
    return [f"{repository.common_dir / 'config'}: hides our refs from whoever fetches"]


def _show_pins(repository: Repository, state: State) -> list[str]:
    if not pins.unhide(repository, state.folder / _HID_PINS):
        return []
    return [f"{repository.common_dir / 'config'}: hides our refs no more"]


def running_guests(state: State) -> list[str]:
    """Return the guests that run."""
    return [name for name, known in survey.look_at_all(state).items() if known.live is not None]


def _remove_domains(state: State) -> list[str]:
    """Destroy the domains that killed monitors left; return what was done, a line each."""
    try:
        bound, _ = host.load(state.host_file)
        guests = state.guest_names()
        over = [one for guest in guests for one in state.generations(guest)]
        return [f"domain {name}: destroyed" for name in domains.sweep(state, bound, over)]
    except Error as error:  # a host file that is damaged, or xl that is gone, is not in the way
        return [f"domains may be left behind: {error.message}"]


def _stop_all(state: State, running: list[str]) -> list[str]:
    lines = []
    for name in running:
        live = survey.look(state, name).live
        monitor = state.monitor_state(live) if live is not None else None
        if live is not None and monitor is not None:
            end(state, live, monitor, "mirage-hooks was taken out")
            monitor.monitor.wait_gone(control.GRACE)
            lines.append(f"{name}: generation {live.number} stopped")
    return lines
