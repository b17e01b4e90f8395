"""The monitor: real monitors that own a real guest, spoken to as a converger speaks to them."""

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mirage_hooks.boot import control, journal
from mirage_hooks.boot.console import said, tail, text_of
from mirage_hooks.boot.control import Conversation, MonitorState, Orders, RestartPolicy
from mirage_hooks.boot.process import ProcessId
from mirage_hooks.boot.tender import explain_exit
from support import USER, free_port, get, wait_for

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
NEVER = RestartPolicy("never")


class Monitored:
    """One generation of a guest with its monitor; this process is the controller."""

    def __init__(self, folder: Path, orders: Orders, port: int) -> None:
        self.folder = folder
        self.orders = orders
        self.port = port
        folder.mkdir(parents=True)
        control.write_json(str(folder / control.ORDERS), asdict(orders))
        ours, theirs = socket.socketpair()
        self.controller = Conversation(ours)
        command = [sys.executable, "-I", "-m", "mirage_hooks.boot.monitor", str(folder)]
        with theirs, (folder / "monitor.log").open("ab") as log:
            subprocess.run(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=30,
                check=True,
            )
        # Known from its own word, and not only from its file, which a test may take away.
        self.last = control.state_from(self.controller.receive(30))

    def state(self) -> MonitorState:
        """Return what the monitor last wrote of itself."""
        path = self.folder / control.STATE
        if path.is_file():
            self.last = control.state_from(json.loads(path.read_bytes()))
        return self.last

    def fire(self, *predecessors: "Monitored") -> None:
        """Let the guest go, in place of others; return when the monitor says that it has."""
        after = [control.state_to(one.state()) for one in predecessors]
        self.controller.send({"do": "fire", "after": after})
        while (answer := self.controller.receive(15))["phase"] == "switching":
            pass
        self.last = control.state_from(answer)

    def let_go(self) -> None:
        """End the controller's conversation, as a converger does that has judged the guest."""
        self.controller.close()

    def serve(self) -> None:
        """Let the guest go, and wait until it answers."""
        self.fire()
        wait_for(lambda: get(self.port) is not None)

    def wait_for_phase(self, phase: str) -> MonitorState:
        """Wait until the monitor is in a phase."""
        wait_for(lambda: self.state().phase == phase)
        return self.state()

    def end(self) -> MonitorState:
        """Wait until the monitor has ended; return its last word."""
        assert self.last.monitor.wait_gone(10)
        return self.state()

    def stop(self) -> MonitorState:
        """Ask for the guest's end, as a converger does."""
        control.stop(self.state())
        return self.end()

    @property
    def tender(self) -> ProcessId:
        """The guest's process."""
        tender = self.state().tender
        assert tender is not None
        return tender

    def status(self, field: str) -> str:
        """Return a field of the guest's /proc/PID/status."""
        text = Path(f"/proc/{self.tender.pid}/status").read_text()
        match = re.search(rf"^{field}:\s*(.*)$", text, re.MULTILINE)
        assert match is not None
        return match[1]

    def console(self) -> list[str]:
        """Return what the guest printed, without dates."""
        return [text_of(line) for line in tail(str(self.folder / control.CONSOLE), 100_000)]

    def said(self) -> list[str]:
        """Return what the guest itself printed."""
        return said(str(self.folder / control.CONSOLE), 100_000)

    def events(self) -> list[dict[str, object]]:
        """Return what the monitor logged."""
        return list(journal.read(self.orders.events))

    def messages(self) -> list[str]:
        """Return the sentences of what the monitor logged."""
        return [str(event["message"]) for event in self.events()]

    def clean_up(self) -> None:
        """Leave nothing that runs, whatever state the test left it in."""
        self.let_go()
        with suppress(ValueError):
            self.state()
        self.last.monitor.kill()
        assert self.last.monitor.wait_gone(5)
        if self.last.tender is not None:
            self.last.tender.wait_gone(2)
            self.last.tender.kill()
            assert self.last.tender.wait_gone(5)


Start = Callable[..., Monitored]


@pytest.fixture
def start(compiled: Callable[[str], Path], tmp_path: Path) -> Iterator[Start]:
    """Return a function that brings a monitor to stand armed."""
    started: list[Monitored] = []

    def begin(
        *arguments: str,
        restart: RestartPolicy = NEVER,
        image: Path | None = None,
        page: str = "one",
        port: int | None = None,
        prepare: Callable[[Path], object] = lambda folder: None,
        user: str | None = USER,
        redact: Sequence[str] = (),
        files: Sequence[Path] = (),
        record: dict[str, object] | None = None,
        prepares: bool = False,
    ) -> Monitored:
        number, port = len(started) + 1, port or free_port()
        folder = tmp_path / str(number)
        orders = Orders(
            guest="www",
            generation=number,
            converge="c1",
            executable=str(image or compiled(page)),
            argv=["www", "--ipv4=127.0.0.1/8", f"--port={port}", *arguments],
            redact=list(redact),
            environment=ENVIRONMENT,
            files=list(map(str, files)),
            taps=[],
            user=user,
            socket=f"{os.environ['XDG_RUNTIME_DIR']}/{number}",
            restart=restart,
            console_bytes=1 << 20,
            events=str(tmp_path / "events.jsonl"),
            settled=str(tmp_path / "settled"),
            record=record or {},
            prepares=prepares,
        )
        started.append(Monitored(folder, orders, port))
        return started[-1]

    yield begin
    for monitored in started:
        monitored.clean_up()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a guest of a shell script."""

    def make(text: str) -> Path:
        path = tmp_path / "guest.sh"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return make


# Armed.


def test_an_armed_monitor_has_a_process_ready_for_the_guest(start: Start) -> None:
    armed = start()
    assert (armed.state().phase, armed.state().alive) == ("armed", True)


def test_what_is_to_be_redacted_is_not_on_the_console(start: Start) -> None:
    armed = start("--secret=hunter22", redact=["--secret=hunter22", "hunter22"])
    armed.fire()
    wait_for(lambda: "unikernel: unknown option '[redacted]'." in armed.console())


def test_an_armed_guest_has_run_nothing(start: Start) -> None:
    armed = start()
    program = Path(f"/proc/{armed.tender.pid}/exe").readlink()
    assert str(program) != armed.orders.executable


def test_an_armed_monitor_whose_controller_is_gone_disarms(start: Start) -> None:
    armed = start()
    armed.let_go()
    assert armed.end().phase == "disarmed"


def test_an_armed_monitor_whose_controller_is_gone_has_run_nothing(start: Start) -> None:
    armed = start()
    armed.let_go()
    armed.end()
    assert (armed.console(), armed.state().started, armed.tender.alive) == ([], None, False)


def test_an_armed_monitor_that_is_stopped_disarms(start: Start) -> None:
    assert start().stop().phase == "disarmed"


def test_a_monitor_that_ended_leaves_no_socket(start: Start) -> None:
    armed = start()
    armed.stop()
    assert not Path(armed.orders.socket).exists()


def test_an_armed_monitor_whose_guest_is_killed_disarms(start: Start) -> None:
    armed = start()
    armed.tender.kill()
    assert armed.end().phase == "disarmed"


def test_only_the_controller_can_fire(start: Start) -> None:
    armed = start()
    answer = control.ask(armed.orders.socket, {"do": "fire", "after": []}, 5)
    assert (answer["phase"], armed.state().phase) == ("armed", "armed")


# Fired.


def test_a_guest_that_is_fired_runs(start: Start) -> None:
    fired = start("--hello=hi")
    fired.serve()
    assert (get(fired.port), fired.state().phase) == ("hi", "running")


def test_a_guest_that_is_fired_is_the_process_that_stood_armed(start: Start) -> None:
    fired = start()
    armed = fired.tender
    fired.serve()
    assert fired.tender == armed


def test_a_guest_outlives_its_controller(start: Start) -> None:
    fired = start()
    fired.serve()
    fired.let_go()
    wait_for(lambda: control.ask(fired.orders.socket, {"do": "status"}, 5))
    assert get(fired.port) == "one"


def test_a_controller_that_vanishes_right_after_the_word_changes_nothing(start: Start) -> None:
    fired = start()
    fired.controller.send({"do": "fire", "after": []})
    fired.let_go()
    wait_for(lambda: get(fired.port) == "one")


def test_a_fire_ends_the_predecessor_first(start: Start) -> None:
    old = start(page="old")
    old.serve()
    old.let_go()
    # On the same port: the new guest fails if the old one is still there.
    new = start(page="new", port=old.port)
    new.fire(old)
    wait_for(lambda: get(new.port) == "new")
    assert old.end().phase == "stopped"


def test_a_predecessor_is_ended_though_the_controller_has_vanished(start: Start) -> None:
    old = start(page="old")
    old.serve()
    old.let_go()
    new = start(page="new", port=old.port)
    new.controller.send({"do": "fire", "after": [control.state_to(old.state())]})
    new.let_go()
    wait_for(lambda: get(new.port) == "new")


def test_a_predecessor_that_is_gone_already_is_no_hindrance(start: Start) -> None:
    old = start(page="old")
    old.serve()
    state = old.state()
    old.stop()
    new = start(page="new", port=old.port)
    new.controller.send({"do": "fire", "after": [control.state_to(state)]})
    wait_for(lambda: get(new.port) == "new")


# What the guest is given.


def test_a_guest_leads_a_session_and_a_process_group_of_its_own(start: Start) -> None:
    fired = start()
    fired.serve()
    pid = fired.tender.pid
    assert (os.getsid(pid), os.getpgid(pid)) == (pid, pid)


def test_a_guest_has_three_open_files_and_no_more(start: Start) -> None:
    fired = start()
    fired.serve()
    names = {path.name for path in Path(f"/proc/{fired.tender.pid}/fd").iterdir()}
    # The fourth is the port that the guest itself opened.
    assert names == {"0", "1", "2", "3"}


def test_a_guest_reads_nothing(start: Start) -> None:
    fired = start()
    fired.serve()
    assert Path(f"/proc/{fired.tender.pid}/fd/0").readlink() == Path("/dev/null")


def test_a_guest_prints_to_its_monitor_alone(start: Start) -> None:
    fired = start()
    fired.serve()
    streams = [Path(f"/proc/{fired.tender.pid}/fd/{fd}").readlink() for fd in (1, 2)]
    assert streams[0] == streams[1]
    assert str(streams[0]).startswith("pipe:")


def test_a_guest_has_the_environment_it_was_ordered_and_no_more(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEAK", "1")
    fired = start()
    fired.serve()
    data = Path(f"/proc/{fired.tender.pid}/environ").read_bytes().decode()
    assert dict(pair.split("=", 1) for pair in data.rstrip("\0").split("\0")) == ENVIRONMENT


def test_a_guest_has_the_arguments_it_was_ordered(start: Start) -> None:
    fired = start("--logs=*:info")
    fired.serve()
    data = Path(f"/proc/{fired.tender.pid}/cmdline").read_bytes().decode()
    assert data.rstrip("\0").split("\0") == fired.orders.argv


def test_a_guest_stands_in_no_folder_of_ours(start: Start) -> None:
    fired = start()
    fired.serve()
    place = (Path(f"/proc/{fired.tender.pid}/cwd").readlink(), fired.status("Umask"))
    assert place == (Path("/"), "0022")


def test_a_guest_ignores_and_blocks_no_signal_that_python_does(start: Start) -> None:
    fired = start()
    fired.serve()
    ignored = int(fired.status("SigIgn"), 16) | int(fired.status("SigBlk"), 16)
    pythons = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM)
    assert [signum for signum in pythons if ignored >> (signum - 1) & 1] == []


def test_a_guest_runs_as_the_user_it_was_ordered_to(start: Start) -> None:
    account = pwd.getpwnam(USER) if USER else pwd.getpwuid(os.getuid())
    fired = start()
    fired.serve()
    assert fired.status("Uid").split() == [str(account.pw_uid)] * 4
    assert fired.status("Gid").split() == [str(account.pw_gid)] * 4


@pytest.mark.skipif(USER is None, reason="only root can give its groups up")
def test_a_guest_of_another_user_keeps_no_group_of_root(start: Start) -> None:
    fired = start()
    fired.serve()
    assert USER is not None
    account = pwd.getpwnam(USER)
    groups = {int(group) for group in fired.status("Groups").split()}
    assert groups == set(os.getgrouplist(USER, account.pw_gid))


# What a tender runs, and the volumes it gives to a guest, are open in it before it is what it is.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a folder that guests cannot enter, with a name that no option would survive."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    path = folder / "a b,c=d,,e"
    path.write_text("contents\n")
    path.chmod(0o604)
    return path


def test_a_file_reaches_a_tender_that_cannot_reach_its_path(
    start: Start, script: Callable[[str], Path], file: Path
) -> None:
    fired = start(image=script(f"cat {control.descriptor(0)}"), files=[file])
    fired.fire()
    wait_for(lambda: "contents" in fired.console())


def test_files_are_in_the_order_of_their_list(
    start: Start, script: Callable[[str], Path], file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.write_text("other\n")
    fired = start(
        image=script(f"cat {control.descriptor(1)} {control.descriptor(0)}"), files=[file, other]
    )
    fired.fire()
    wait_for(lambda: fired.said()[:2] == ["other", "contents"])


def test_a_file_is_written_to_where_it_is(
    start: Start, script: Callable[[str], Path], file: Path
) -> None:
    file.chmod(0o606)
    fired = start(image=script(f"echo written >{control.descriptor(0)}"), files=[file])
    fired.fire()
    wait_for(lambda: file.read_text() == "written\n")


@pytest.mark.skipif(USER is None, reason="only root runs a guest as another user")
def test_a_file_that_is_closed_to_the_guests_user_stays_closed(
    start: Start, script: Callable[[str], Path], file: Path
) -> None:
    file.chmod(0o600)
    fired = start(image=script(f"cat {control.descriptor(0)}"), files=[file])
    fired.fire()
    wait_for(lambda: any("Permission denied" in line for line in fired.console()))


def test_a_file_that_is_only_read_cannot_be_written_to(
    start: Start, script: Callable[[str], Path], file: Path
) -> None:
    if USER is None:
        file.chmod(0o404)
    fired = start(image=script(f"echo x >{control.descriptor(0)}"), files=[file])
    fired.fire()
    wait_for(lambda: any("Permission denied" in line for line in fired.console()))


def test_a_guest_that_is_booted_again_has_its_files_again(
    start: Start, script: Callable[[str], Path], file: Path
) -> None:
    again = RestartPolicy("always", 5, 60)
    fired = start(image=script(f"cat {control.descriptor(0)}"), files=[file], restart=again)
    fired.fire()
    fired.let_go()
    wait_for(lambda: fired.console().count("contents") > 1)


def test_a_file_that_is_missing_keeps_a_monitor_from_standing_armed(
    start: Start, file: Path
) -> None:
    file.unlink()
    with pytest.raises((ValueError, OSError, subprocess.SubprocessError)):
        start(files=[file])


def test_a_script_can_be_a_guest(start: Start, script: Callable[[str], Path]) -> None:
    fired = start(image=script("echo hello; exec sleep 60"))
    fired.fire()
    wait_for(lambda: fired.said() == ["hello"])


# Tenders that go on preparing once they are let go.


@pytest.fixture
def slow(start: Start, script: Callable[[str], Path], tmp_path: Path) -> Callable[..., Monitored]:
    """Return a function that arms a guest which is made as long as the file `made` is not there."""
    making = f"until [ -e {tmp_path}/made ]; do sleep 0.02; done"
    guest = f"test -e {tmp_path}/broken && exit 84; printf ! >&99; exec sleep 60"
    words = f"printf + >&99; read -rN1 <&99 || exit 0; {making}; {guest}"

    def arm(restart: RestartPolicy = NEVER) -> Monitored:
        image = script(f"exec bash -c '{words}'")
        return start(image=image, user=None, prepares=True, restart=restart)

    return arm


def let(monitored: Monitored) -> None:
    """Let a guest go, and return once its monitor has said so."""
    monitored.controller.send({"do": "fire", "after": []})
    monitored.wait_for_phase("switching")


def test_a_guest_that_is_still_being_made_does_not_run(
    slow: Callable[..., Monitored], tmp_path: Path
) -> None:
    let(fired := slow())
    time.sleep(0.5)
    assert fired.state().phase == "switching"
    (tmp_path / "made").touch()
    assert fired.wait_for_phase("running").alive


def test_a_guest_whose_making_fails_never_ran(
    slow: Callable[..., Monitored], tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    (tmp_path / "made").touch()
    fired = slow()
    fired.fire()
    assert (fired.last.phase, fired.last.exit_code) == ("exited", 84)


def test_a_guest_that_is_still_being_made_can_be_stopped(slow: Callable[..., Monitored]) -> None:
    let(fired := slow())
    tender = fired.tender
    assert (fired.stop().phase, tender.alive) == ("stopped", False)


def test_a_guest_that_is_being_made_again_is_restarting_and_can_be_stopped(
    slow: Callable[..., Monitored], tmp_path: Path
) -> None:
    (tmp_path / "made").touch()
    fired = slow(restart=RestartPolicy())
    fired.fire()
    fired.let_go()
    (tmp_path / "made").unlink()
    first = fired.tender
    first.kill()
    wait_for(lambda: fired.tender != first)
    time.sleep(0.5)
    assert (fired.state().phase, fired.state().alive) == ("backing-off", True)
    tender = fired.tender
    assert (fired.stop().phase, tender.alive) == ("stopped", False)


def test_a_guest_that_was_made_again_runs(slow: Callable[..., Monitored], tmp_path: Path) -> None:
    (tmp_path / "made").touch()
    fired = slow(restart=RestartPolicy())
    fired.fire()
    fired.let_go()
    first = fired.tender
    first.kill()
    wait_for(lambda: fired.tender != first)
    assert fired.wait_for_phase("running").restarts == 1


# Stopping.


def test_a_guest_that_is_stopped_is_gone(start: Start) -> None:
    fired = start()
    fired.serve()
    tender = fired.tender
    assert fired.stop().phase == "stopped"
    assert (get(fired.port), tender.alive) == (None, False)


def test_a_stop_is_graceful(start: Start, script: Callable[[str], Path]) -> None:
    text = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    fired = start(image=script(text))
    fired.fire()
    wait_for(lambda: "ready" in fired.console())
    assert fired.stop().exit == "exited with 7"
    assert "bye" in fired.console()


def test_a_guest_that_does_not_heed_a_stop_is_killed(start: Start) -> None:
    fired = start("--deaf")
    fired.serve()
    assert fired.stop().exit == "was killed by SIGKILL"
    assert fired.console()[-1] == "[mirage-hooks: no end within 5 s of SIGTERM: killed]"


def test_a_stop_is_graceful_for_a_guest_that_closed_its_console(
    start: Start, script: Callable[[str], Path]
) -> None:
    text = "trap 'sleep 0.2; exit 7' TERM; echo ready; exec >&- 2>&-; while :; do sleep 0.02; done"
    fired = start(image=script(text))
    fired.fire()
    wait_for(fired.console)
    time.sleep(0.1)
    fired.stop()
    assert (fired.state().phase, fired.state().exit) == ("stopped", "exited with 7")


def test_sigterm_to_the_monitor_stops_its_guest(start: Start) -> None:
    fired = start()
    fired.serve()
    fired.let_go()
    tender = fired.tender
    fired.state().monitor.kill(signal.SIGTERM)
    assert fired.end().phase == "stopped"
    assert not tender.alive


def test_a_guest_does_not_outlive_its_monitor(start: Start) -> None:
    fired = start("--deaf")
    fired.serve()
    fired.state().monitor.kill()
    assert fired.tender.wait_gone(5)


def test_an_armed_guest_does_not_outlive_its_monitor(start: Start) -> None:
    armed = start()
    armed.state().monitor.kill()
    assert armed.tender.wait_gone(5)


def test_what_a_guest_left_in_its_process_group_ends_with_it(
    start: Start, script: Callable[[str], Path]
) -> None:
    fired = start(image=script("sleep 60 & exit 0"))
    fired.fire()
    group = fired.tender.pid
    fired.wait_for_phase("exited")

    def group_is_gone() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    wait_for(group_is_gone, 5)


def test_a_stop_while_a_restart_is_waited_for_boots_nothing(start: Start) -> None:
    fired = start("--exit=1", restart=RestartPolicy("failure"))
    fired.fire()
    fired.let_go()
    fired.wait_for_phase("backing-off")
    ended = fired.stop()
    assert (ended.phase, ended.restarts) == ("stopped", 0)


# How a guest ended, in words.


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--exit=0"], "exited with 0", 0),
        (["--exit=7"], "exited with 7", 7),
        (["--help"], "exited with 63 (it was asked for its --help)", 63),
        (["--nonsense"], "exited with 64 (an argument it does not take)", 64),
        (["--exit=255"], "exited with 255 (an abort or a trap)", 255),
        (["--crash-after=0"], "was killed by SIGABRT", None),
    ],
)
def test_how_a_guest_ended_is_told_in_words(
    start: Start, arguments: list[str], words: str, code: int | None
) -> None:
    fired = start(*arguments)
    fired.fire()
    ended = fired.wait_for_phase("exited")
    assert (ended.exit, ended.exit_code) == (words, code)


def test_a_port_in_use_is_told_in_words(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fired = start(port=taken.getsockname()[1])
        fired.fire()
        ended = fired.wait_for_phase("exited")
    assert ended.exit == "exited with 2 (an uncaught exception, such as a port in use)"


def test_an_image_that_cannot_be_executed_is_told_in_words(start: Start, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"no program")
    image.chmod(0o755)
    fired = start(image=image)
    fired.fire()
    assert fired.wait_for_phase("exited").exit == "exited with 126 (the image cannot be executed)"


def test_an_image_that_is_missing_is_told_in_words(start: Start, tmp_path: Path) -> None:
    fired = start(image=tmp_path / "missing", user=None)
    fired.fire()
    assert fired.wait_for_phase("exited").exit == "exited with 127 (the image cannot be found)"


def test_an_image_that_cannot_be_executed_says_why_on_the_console(
    start: Start, tmp_path: Path
) -> None:
    fired = start(image=tmp_path / "missing", user=None)
    fired.fire()
    fired.wait_for_phase("exited")
    assert fired.said()[0].startswith(f"cannot execute {tmp_path}/missing: [Errno 2]")


def test_a_guest_that_is_killed_is_told_by_the_signal(start: Start) -> None:
    fired = start()
    fired.serve()
    fired.tender.kill(signal.SIGSEGV)
    ended = fired.wait_for_phase("exited")
    assert (ended.exit, ended.exit_code) == ("was killed by SIGSEGV", None)


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    words, code = explain_exit(-(signal.SIGRTMIN + 1))
    assert (str(signal.SIGRTMIN + 1) in words, code) == (True, None)


def test_the_console_ends_with_how_the_guest_did(start: Start) -> None:
    fired = start("--chatter=3", "--exit=7")
    fired.fire()
    fired.wait_for_phase("exited")
    assert fired.console()[-1] == "[mirage-hooks: the guest exited with 7]"


# Restarts.


def test_a_guest_that_failed_is_booted_again(start: Start) -> None:
    fired = start(restart=RestartPolicy("failure", limit=1))
    fired.serve()
    fired.let_go()
    first = fired.tender
    first.kill()
    wait_for(lambda: fired.state().restarts == 1)
    wait_for(lambda: get(fired.port) == "one")
    assert fired.tender != first


def test_restarts_back_off_and_end_at_the_limit(start: Start) -> None:
    fired = start("--exit=1", restart=RestartPolicy("failure", limit=2))
    fired.fire()
    fired.let_go()
    ended = fired.end()
    assert (ended.phase, ended.restarts) == ("given-up", 2)
    assert fired.messages() == [
        "www: exited with 1; restart 1 of 2 in 0.5 s",
        "www: exited with 1; restart 2 of 2 in 1 s",
        "www: exited with 1; given up after its limit of restarts (2 in 600 s): "
        "`mirage-hooks reboot www` tries again",
    ]


def test_a_restart_waits_as_long_as_it_says(start: Start) -> None:
    fired = start("--exit=1", restart=RestartPolicy("failure", limit=1))
    fired.fire()
    fired.let_go()
    fired.end()
    restarting, given_up = [event["time"] for event in fired.events()]
    assert isinstance(restarting, float)
    assert isinstance(given_up, float)
    assert 0.45 <= given_up - restarting < 3


def test_restarts_older_than_the_window_do_not_count(start: Start) -> None:
    fired = start("--exit=1", restart=RestartPolicy("failure", limit=1, window=0.1))
    fired.fire()
    fired.let_go()
    wait_for(lambda: fired.state().restarts == 2)
    assert fired.state().phase != "given-up"


def test_a_guest_that_ended_well_is_not_booted_again_after_failures_only(start: Start) -> None:
    fired = start("--exit=0", restart=RestartPolicy("failure"))
    fired.fire()
    fired.let_go()
    ended = fired.end()
    assert (ended.phase, ended.restarts) == ("finished", 0)


def test_a_guest_that_ended_well_is_booted_again_always(start: Start) -> None:
    fired = start("--exit=0", restart=RestartPolicy("always", limit=1))
    fired.fire()
    fired.let_go()
    assert fired.end().restarts == 1


def test_a_guest_is_never_booted_again_if_so_ordered(start: Start) -> None:
    fired = start("--exit=1", restart=NEVER)
    fired.fire()
    fired.let_go()
    ended = fired.end()
    assert (ended.phase, ended.restarts) == ("finished", 0)
    assert fired.messages() == ["www: exited with 1; its restart policy is 'never'"]


@pytest.mark.parametrize("argument", ["--help", "--nonsense"])
def test_a_guest_that_would_end_the_same_is_not_booted_again(start: Start, argument: str) -> None:
    fired = start(argument, restart=RestartPolicy("always"))
    fired.fire()
    fired.let_go()
    ended = fired.end()
    assert (ended.phase, ended.restarts) == ("finished", 0)
    assert fired.messages()[0].endswith("; starting it again would end the same")


def test_while_the_controller_judges_nothing_is_booted_again(start: Start) -> None:
    fired = start("--exit=1", restart=RestartPolicy("always"))
    fired.fire()
    fired.wait_for_phase("exited")
    time.sleep(0.7)
    assert (fired.state().phase, fired.state().restarts) == ("exited", 0)


def test_once_the_controller_is_gone_the_policy_is_applied(start: Start) -> None:
    fired = start("--exit=1", restart=RestartPolicy("failure"))
    fired.fire()
    fired.wait_for_phase("exited")
    fired.let_go()
    assert fired.wait_for_phase("backing-off").exit == "exited with 1"


def test_an_event_names_guest_generation_and_converge(start: Start) -> None:
    fired = start("--exit=1", restart=NEVER)
    fired.fire()
    fired.let_go()
    fired.end()
    [event] = fired.events()
    assert (event["event"], event["guest"], event["generation"], event["converge"]) == (
        "guest.ended",
        "www",
        1,
        "c1",
    )


def test_a_change_of_policy_takes_effect_without_a_reboot(start: Start) -> None:
    fired = start(restart=NEVER)
    fired.serve()
    fired.let_go()
    first = fired.tender
    policy = asdict(RestartPolicy("failure", limit=1))
    control.ask(fired.orders.socket, {"do": "restart", "policy": policy}, 5)
    assert first.alive
    first.kill()
    wait_for(lambda: fired.state().restarts == 1)


# The fast path of the hooks.


@pytest.mark.parametrize("how", ["ends by itself", "is stopped"])
def test_a_guest_that_ends_is_no_longer_settled(start: Start, tmp_path: Path, how: str) -> None:
    fired = start()
    fired.serve()
    (tmp_path / "settled").touch()
    if how == "is stopped":
        fired.stop()
    else:
        fired.tender.kill()
        fired.wait_for_phase("exited")
    assert not (tmp_path / "settled").exists()


def test_a_monitor_that_disarms_leaves_what_is_settled(start: Start, tmp_path: Path) -> None:
    (tmp_path / "settled").touch()
    armed = start()
    armed.let_go()
    armed.end()
    assert (tmp_path / "settled").exists()


# What ties its lines to a deploy.


def test_the_console_begins_with_the_deploy_that_booted_the_guest(
    start: Start, script: Callable[[str], Path]
) -> None:
    fired = start(image=script("echo hello; exec sleep 60"))
    fired.fire()
    wait_for(lambda: len(fired.console()) == 2)
    assert fired.console() == ["[mirage-hooks: generation 1 boots, by deploy c1]", "hello"]


def test_an_armed_guest_has_no_console_yet(start: Start) -> None:
    assert start().console() == []


# Nothing stalls a guest.


def test_the_console_is_drained_though_nobody_reads_it(start: Start) -> None:
    fired = start("--chatter=5000")
    fired.serve()
    wait_for(lambda: len(fired.said()) == 5001)


def test_a_console_that_cannot_be_written_does_not_stall_the_guest(start: Start) -> None:
    fired = start("--chatter=5000")
    (fired.folder / control.CONSOLE).mkdir()
    fired.serve()
    assert get(fired.port) == "one"


def test_what_of_a_console_could_not_be_written_is_counted(start: Start) -> None:
    fired = start("--chatter=5000")
    (fired.folder / control.CONSOLE).mkdir()
    fired.serve()
    # Each of the lines has a hundred bytes.
    assert fired.stop().dropped >= 500_000


def test_a_console_that_can_be_written_again_tells_of_the_gap(start: Start) -> None:
    fired = start("--chatter=10")
    (fired.folder / control.CONSOLE).mkdir()
    fired.serve()
    # Its answer comes after it has taken what the guest has printed so far.
    control.ask(fired.orders.socket, {"do": "status"}, 5)
    (fired.folder / control.CONSOLE).rmdir()
    fired.tender.kill()
    fired.wait_for_phase("exited")
    assert fired.console()[0].endswith("bytes were dropped here]")


def test_a_state_that_cannot_be_written_does_not_keep_the_guest_from_booting(
    start: Start,
) -> None:
    fired = start()
    path = fired.folder / control.STATE
    path.unlink()
    (path / "in the way").mkdir(parents=True)
    fired.serve()
    assert get(fired.port) == "one"


def test_an_event_log_that_cannot_be_written_does_not_keep_the_guest_down(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "events.jsonl").mkdir()
    fired = start(restart=RestartPolicy("failure", limit=1))
    fired.serve()
    fired.let_go()
    fired.tender.kill()
    wait_for(lambda: fired.state().restarts == 1)
    wait_for(lambda: get(fired.port) == "one")


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"[]",
        b'{"do": "dance"}',
        b'{"do": "restart", "policy": {"on": "failure", "limit": 5, "window": 1, "new": 1}}',
        b'{"do": "restart", "policy": {"limit": "five"}}',
        b"\xff",
    ],
)
def test_a_request_that_is_not_understood_does_the_guest_no_harm(start: Start, line: bytes) -> None:
    fired = start()
    fired.serve()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(fired.orders.socket)
        client.sendall(line + b"\n")
        client.recv(65536)
    assert control.ask(fired.orders.socket, {"do": "status"}, 5)["phase"] == "running"


def test_a_policy_that_makes_no_sense_does_not_end_the_monitor_later(start: Start) -> None:
    fired = start("--exit=1", restart=NEVER)
    policy = {"on": "failure", "limit": "five", "window": None}
    fired.fire()
    fired.wait_for_phase("exited")
    control.ask(fired.orders.socket, {"do": "restart", "policy": policy}, 5)
    fired.let_go()
    assert fired.end().phase in control.ENDED


def test_a_client_that_never_reads_stalls_nobody(start: Start) -> None:
    fired = start()
    fired.serve()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(fired.orders.socket)
        with suppress(OSError):
            client.sendall(b'{"do": "status"}\n' * 20_000)
        answer = control.ask(fired.orders.socket, {"do": "status"}, 5)
    assert answer["phase"] == "running"


# The conversation.


def test_the_monitor_answers_with_its_state(start: Start) -> None:
    fired = start()
    fired.serve()
    answer = control.ask(fired.orders.socket, {"do": "status"}, 5)
    assert control.state_from(answer) == fired.state()


def test_a_client_that_hangs_up_is_nobodys_controller(start: Start) -> None:
    armed = start()
    for _ in range(3):
        control.ask(armed.orders.socket, {"do": "status"}, 5)
    assert control.ask(armed.orders.socket, {"do": "status"}, 5)["phase"] == "armed"


def test_several_requests_can_come_at_once(start: Start) -> None:
    armed = start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(armed.orders.socket)
        client.sendall(b'{"do": "status"}\n{"do": "sta')
        client.sendall(b'tus"}\n')
        data = b""
        while data.count(b"\n") < 2:
            data += client.recv(65536)
    assert [json.loads(line)["phase"] for line in data.splitlines()] == ["armed"] * 2


def test_a_monitor_that_does_not_answer_is_stopped_all_the_same(start: Start) -> None:
    fired = start()
    fired.serve()
    fired.let_go()
    tender = fired.tender
    Path(fired.orders.socket).unlink()
    control.stop(fired.state())
    assert (fired.end().phase, tender.alive) == ("stopped", False)


def test_a_stop_of_a_monitor_that_is_gone_ends_nothing_else(start: Start) -> None:
    other = start()
    other.serve()
    gone = replace(other.state().monitor, start=1)
    tender = replace(other.tender, start=1)
    control.stop(replace(other.state(), monitor=gone, tender=tender))
    assert get(other.port) == "one"


def test_a_monitor_is_no_child_of_who_started_it(start: Start) -> None:
    armed = start()
    text = Path(f"/proc/{armed.state().monitor.pid}/status").read_text()
    assert f"PPid:\t{os.getpid()}\n" not in text
    assert os.getsid(armed.state().monitor.pid) != os.getsid(0)


def test_a_monitor_holds_none_of_the_streams_of_who_started_it(start: Start) -> None:
    armed = start()
    folder = Path(f"/proc/{armed.state().monitor.pid}/fd")
    streams = [folder.joinpath(name).readlink() for name in ("0", "1", "2")]
    log = armed.folder / "monitor.log"
    assert streams == [Path("/dev/null"), log, log]


# What it knows of itself.


def test_a_monitor_hands_back_the_record_that_it_was_given(start: Start) -> None:
    armed = start(record={"guest": "www"})
    assert control.describe(armed.orders.socket) == (armed.state(), {"guest": "www"})


def test_a_monitor_remembers_a_record_that_has_changed(start: Start) -> None:
    armed = start(record={"phase": "preparing"})
    control.remember(armed.state(), {"phase": "healthy"})
    assert control.describe(armed.orders.socket)[1] == {"phase": "healthy"}


def test_a_monitor_whose_folder_is_lost_is_recorded_where_it_is_asked(start: Start) -> None:
    fired = start()
    fired.serve()
    # At once: it may be writing there just now.
    fired.folder.rename(fired.folder.with_name("lost"))
    control.describe(fired.orders.socket)
    assert control.state_from(json.loads((fired.folder / control.STATE).read_bytes())).alive


def test_a_monitor_whose_socket_is_lost_listens_again_on_sighup(start: Start) -> None:
    fired = start(record={"guest": "www"})
    fired.serve()
    Path(fired.orders.socket).unlink()
    fired.state().monitor.kill(signal.SIGHUP)
    wait_for(lambda: Path(fired.orders.socket).exists())
    assert control.describe(fired.orders.socket)[1] == {"guest": "www"}
    assert get(fired.port) == "one"


def test_a_guest_gets_no_sighup_for_its_monitor(start: Start) -> None:
    fired = start()
    fired.serve()
    fired.state().monitor.kill(signal.SIGHUP)
    control.describe(fired.orders.socket)
    assert fired.tender.alive
