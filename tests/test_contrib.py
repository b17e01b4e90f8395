"""What operators copy: units that systemd takes, and what they run."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mirage_hooks.installer import crontab, units
from mirage_hooks.installer.job import Job
from support import Site, wait_for

COMMAND = "/opt/mirage-hooks/bin/mirage-hooks"
SCRIPT = ".git/mirage-hooks/poll"
CONTRIB = Path(__file__).parent.parent / "contrib"
SYSTEMD = CONTRIB / "systemd"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze"
)


@needs_systemd
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    units = sorted(SYSTEMD.iterdir())
    # It finds a program that is not there wrong, too.
    for unit in units:
        (tmp_path / unit.name).write_text(unit.read_text().replace(COMMAND, "/bin/true"))
    assert verify(*(tmp_path / unit.name for unit in units)) == (0, [])


@needs_systemd
@pytest.mark.parametrize("name", ["deployment", "a site", "100%n $HOME", "Jürgen 日本", ".x"])
def test_systemd_finds_nothing_wrong_with_the_units_that_install_writes(
    tmp_path: Path, name: str
) -> None:
    command = tmp_path / name / "mirage-hooks"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    paths = []
    for template, text in units.render(str(command), SCRIPT, "90s", 90).items():
        paths.append(tmp_path / units.instance(template, str(tmp_path / name)))
        paths[-1].write_text(text)
    assert verify(*paths) == (0, [])


def test_the_units_are_what_install_writes() -> None:
    for template, text in units.render(COMMAND, SCRIPT, "5m", 300).items():
        assert (SYSTEMD / template).read_text() == text


def test_the_crontab_is_what_install_writes() -> None:
    job = Job(COMMAND, "/srv/deployment", SCRIPT, "775d5744cb82")
    assert (SYSTEMD.parent / "cron" / "crontab").read_text() == crontab.render(job, 300)


def verify(*units: Path) -> tuple[int, list[str]]:
    """Return how systemd-analyze ends, and what it says of our units."""
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    return done.returncode, [line for line in done.stderr.splitlines() if "mirage-hooks" in line]


@pytest.fixture
def service(tmp_path: Path) -> Callable[[], str]:
    """A pushed repository; a function that runs the service, and returns what that started."""
    trigger = tmp_path / "mirage-hooks.trigger"
    trigger.write_text("push\n")
    command, runs = tmp_path / "mirage-hooks", tmp_path / "runs"
    # The first time somebody pushes while it deploys.
    command.mkdir()
    program = command / "program"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{runs}\n: >{trigger}\n'
        f"[ $(wc -l <{runs}) -gt 1 ] || echo push >{trigger}\n"
    )
    program.chmod(0o755)
    unit = (SYSTEMD / "mirage-hooks-trigger.service").read_text()
    script = unit.partition("ExecStart=/bin/sh -c '")[2].partition("'\n")[0].replace("$$", "$")
    environment = {"REPOSITORY": str(tmp_path), "MIRAGE_HOOKS": str(program)}

    def start() -> str:
        subprocess.run(["/bin/sh", "-c", script], env=environment, check=True, timeout=20)
        return runs.read_text() if runs.exists() else ""

    return start


def test_the_service_deploys_until_the_trigger_stays_empty(
    service: Callable[[], str], tmp_path: Path
) -> None:
    assert service() == f"-C {tmp_path} poll\n" * 2


def test_a_pause_holds_the_service_back(service: Callable[[], str], tmp_path: Path) -> None:
    (tmp_path / "mirage-hooks" / "paused").write_text("{}")
    assert service() == ""


# The chat's webhook.

WEBHOOK = CONTRIB / "notify" / "webhook.py"
EVENT = {
    "event": "guest.unhealthy",
    "message": "www: generation 2 is not healthy\n    exit\n    code",
    "repository": "/srv/deployment",
    "branch": "main",
    "host": "alpha",
}


class Chat(ThreadingHTTPServer):
    """A chat's server, on loopback, and what was posted to it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Room)
        self.status, self.posted = 200, list[tuple[str, str | None, Any]]()


class Room(BaseHTTPRequestHandler):
    server: Chat

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posted.append((self.path, self.headers["Content-Type"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def chat() -> Iterator[Chat]:
    """A chat's server that takes posts."""
    with Chat() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def post(folder: Path, url: str, event: object = EVENT) -> "subprocess.CompletedProcess[str]":
    """Run the webhook as mirage-hooks does, with an address in its file."""
    address = folder / "webhook"
    address.write_text(f"{url}\n")
    return subprocess.run(
        [sys.executable, WEBHOOK, address],
        input=json.dumps(event),
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_webhook_posts_where_and_what_happened(tmp_path: Path, chat: Chat) -> None:
    done = post(tmp_path, f"http://127.0.0.1:{chat.server_port}/hooks/secret")
    text = "*alpha* /srv/deployment (main): www: generation 2 is not healthy\n> exit\n> code"
    assert (done.returncode, chat.posted) == (
        0,
        [("/hooks/secret", "application/json", {"text": text})],
    )


def test_a_chat_that_refuses_is_an_error_that_keeps_the_address(tmp_path: Path, chat: Chat) -> None:
    chat.status = 403
    done = post(tmp_path, f"http://127.0.0.1:{chat.server_port}/hooks/secret")
    assert (done.returncode, done.stderr) == (1, "the webhook answers 403 Forbidden\n")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/secret", "secret", "http://[secret/", ""])
def test_a_chat_that_cannot_be_reached_is_an_error_that_keeps_the_address(
    tmp_path: Path, url: str
) -> None:
    done = post(tmp_path, url)
    assert (done.returncode, "not posted" in done.stderr, "secret" in done.stderr) == (
        1,
        True,
        False,
    )


def test_a_deploy_is_posted_to_the_chat(installed: Site, tmp_path: Path, chat: Chat) -> None:
    address = tmp_path / "webhook"
    address.write_text(f"http://127.0.0.1:{chat.server_port}/hooks/secret\n")
    script = tmp_path / "tell"
    script.write_bytes(WEBHOOK.read_bytes())
    script.chmod(0o755)
    installed.tell_host(notify={"command": [str(script), str(address)]})
    installed.command("deploy")
    wait_for(lambda: chat.posted)
    assert "www: generation 1 is healthy" in chat.posted[0][2]["text"]
