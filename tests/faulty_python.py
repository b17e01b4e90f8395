"""A Python that has faults where it is told to; in everything else it is the real one.

Run as `faulty_python.py FOLDER ARGUMENTS...` it does what Python does with these arguments, as far
as the product calls it; what that starts by its own interpreter goes through here as well. With the
argument `serve` it forks a converger for each line of its standard input: none pays for imports.

FOLDER has `python`, the script that stands for this interpreter, and `plan.json`, read at each
step: every durable write of a record, and what else changes the state folder for good. A step's
name says before or after what, and whose generation: +1 is the first that is made after `base`.
"""

import contextlib
import errno
import json
import os
import runpy
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

from mirage_hooks.boot import files, journal
from mirage_hooks.boot.process import ProcessId

P = ParamSpec("P")
R = TypeVar("R")

FOLDER = Path(sys.argv[1])
_WALL_CLOCK = time.time

_seen: Counter[str] = Counter()


def plan() -> dict[str, object]:
    """Return what is to go wrong, and where."""
    with contextlib.suppress(FileNotFoundError):
        found: dict[str, object] = json.loads((FOLDER / "plan.json").read_bytes())
        return found
    return {}


def note(file: str, text: str) -> None:
    """Add a line to a file of the folder, in one write."""
    descriptor = os.open(FOLDER / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


# Steps.


def at(step: str) -> None:
    """Be at a step: note it, and have it go wrong where that is the plan."""
    asked = plan()
    if asked.get("note"):
        note("steps", step)
    if asked.get("step") == step:
        _strike(str(asked["victim"]))


def wrapped(function: Callable[P, R], name: Callable[P, str | None]) -> Callable[P, R]:
    """Return a function with a step before and after it; `name` may say that it is none."""

    def steps(*args: P.args, **kwargs: P.kwargs) -> R:
        named = name(*args, **kwargs)
        if named is None:
            return function(*args, **kwargs)
        _seen[named] += 1
        again = f" ({_seen[named]})" if _seen[named] > 1 and "monitor" not in named else ""
        at(f"before {named}{again}")
        try:
            return function(*args, **kwargs)
        finally:
            at(f"after {named}{again}")

    return steps


def _name_of_file(path: str | os.PathLike[str], data: bytes, mode: int = 0o600) -> str:
    del mode
    file = Path(path)
    if file.parent.name == "blobs":
        return "store's index"
    if not file.parent.name.isdecimal():
        return file.name
    phase = json.loads(data).get("phase")
    said = f": {phase}" if phase else ""
    return f"{file.name} of {_relative(int(file.parent.name))}{said}"


def _name_of_event(path: str, event: dict[str, object]) -> str:
    del path
    number = event.get("generation")
    return f"event {event['event']}" + (f" of {_relative(number)}" if number else "")


def _relative(number: object) -> str:
    return f"{int(str(number)) - int(str(plan().get('base', 0))):+d}"


def wrap_files() -> None:
    """Have steps in what writes; before anything else is imported that takes it by name."""
    files.write_atomic = wrapped(files.write_atomic, _name_of_file)
    files.append_durably = wrapped(
        files.append_durably, lambda path, data: f"{Path(path).name} longer"
    )
    journal.append = wrapped(journal.append, _name_of_event)


def wrap_converger() -> None:
    """Have steps in what else changes the state folder, or git's refs."""
    from mirage_hooks.boot import settled
    from mirage_hooks.boot.record import State
    from mirage_hooks.boot.repository import Repository

    settled.clear = wrapped(settled.clear, lambda state: "settled cleared")
    for owner, method, name in (
        (State, "next_number", "number taken"),
        (State, "forget", "generations forgotten"),
        (Repository, "update_refs", "pins"),
    ):
        whole = getattr(owner, method)
        setattr(owner, method, wrapped(whole, lambda *_, name=name: name))


# What goes wrong.


def _strike(victim: str) -> None:
    if victim in {"disk", "clock"}:
        {"disk": _fill, "clock": _set_clock}[victim]()
        note("struck", victim)
        return
    found = list(_victims(victim))
    if not found:
        return
    note("struck", victim)
    # This process last: the others would not be killed any more.
    for pid in sorted(found, key=lambda pid: pid == os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _victims(victim: str) -> Iterator[int]:
    """Yield the pids of who is to be killed: of monitors and tenders the newest, or all."""
    state = Path(str(plan()["state"]))
    if victim in {"converger", "all"}:
        with contextlib.suppress(OSError, ValueError, KeyError):
            owner = json.loads((state / "lock").read_bytes())
            if ProcessId(owner["boot"], owner["pid"], owner["start"]).alive:
                yield owner["pid"]
    if victim == "converger":
        return
    folders = sorted(state.glob("guests/*/[0-9]*"), key=lambda folder: -int(folder.name))
    for folder in folders:
        found = False
        for kind in ("tender", "monitor"):
            process = _process(folder, kind)
            if process is not None and victim in {kind, "all"}:
                found = True
                yield process.pid
        if found and victim != "all":
            return
    if victim == "all":
        yield os.getpid()


def _process(folder: Path, kind: str) -> ProcessId | None:
    try:
        raw = json.loads((folder / "monitor.json").read_bytes())[kind]
    except (OSError, ValueError, KeyError):
        return None
    process = ProcessId(**raw) if raw else None
    return process if process is not None and process.alive else None


def _fill() -> None:
    """Fill the file system that the state is on, to the last byte."""
    with (Path(str(plan()["state"])).parent / "filler").open("ab", buffering=0) as filler:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    filler.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def _set_clock() -> None:
    """Set the clock for everybody."""
    whole = plan()
    new = FOLDER / f"plan.{os.getpid()}"
    new.write_text(json.dumps(whole | {"clock": whole["jump"]}))
    new.rename(FOLDER / "plan.json")


def wrap_clock() -> None:
    """Have the wall clock wrong by as many seconds as the plan says: it stands for one that is set.

    What the kernel dates itself, such as files, is as ever.
    """
    gmtime = time.gmtime

    def wrong() -> float:
        return _WALL_CLOCK() + float(str(plan().get("clock", 0)))

    time.time = wrong
    time.gmtime = lambda at=None: gmtime(wrong() if at is None else at)


# What Python does.


def serve() -> None:
    """Fork a converger for each line of standard input; answer each with how that ended."""
    from mirage_hooks.boot import converge

    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become_converger(asked, converge.main)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become_converger(asked: dict[str, str], main: Callable[[], None]) -> NoReturn:
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    log = os.open(FOLDER / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    sys.argv = ["converge", asked["common_dir"], asked["converge"], asked["request"]]
    code = 70
    try:
        main()
    except SystemExit as end:
        code = int(str(end.code or 0))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Be the Python that the arguments ask for."""
    sys.executable = str(FOLDER / "python")
    arguments = [argument for argument in sys.argv[2:] if argument != "-I"]
    wrap_files()
    wrap_clock()
    if arguments == ["serve"] or "mirage_hooks.boot.converge" in arguments:
        wrap_converger()
    if arguments == ["serve"]:
        serve()
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
