"""`make demo`: the main job, end to end, in a temporary folder, with no root.

CI is played by this script, which commits images to an upstream; the guest is compiled from
tests/guests/unix_web.c, a stand-in for a MirageOS unix image. Everything else is the real thing.
"""

import bz2
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUEST = ROOT / "tests" / "guests" / "unix_web.c"

MANIFEST = """\
[guest.www]
target = "unix"
image  = "unix/{{latest}}/www.unix"
args   = ["--ipv4=127.0.0.1/8", "--port={port}"]

[guest.www.check]
http = "http://127.0.0.1:{port}/"
"""


class Demo:
    """A deployment repository, CI's side and the host's, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.upstream = folder / "deployment"
        self.host = folder / "host"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        (folder / ".gitconfig").write_text(
            "[user]\nname = CI\nemail = ci@example.org\n[init]\ndefaultBranch = main\n"
        )

    def say(self, text: str) -> None:
        """Tell what happens next."""
        bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
        print(f"\n{bold}# {text}{plain}", flush=True)

    def show(self, *command: str) -> None:
        """Run a command on the host as an operator would, with what it prints."""
        print(f"$ {shlex.join(command)}", flush=True)
        done = subprocess.run(
            command, cwd=self.host, env=self.environment, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode != 0:
            sys.exit(f"demo: {shlex.join(command)} ended with {done.returncode}")

    def fetch(self, expected: str) -> None:
        """Fetch the page from the guest; the demo fails if it is not the one expected."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            reply = b"".join(iter(lambda: connection.recv(4096), b"")).decode()
        page = reply.partition("\r\n\r\n")[2].strip()
        print(f"GET http://127.0.0.1:{self.port}/ -> {page}", flush=True)
        if page != expected:
            sys.exit(f"demo: expected the page {expected!r}")

    def git(self, *arguments: str) -> None:
        """Run git on CI's side, quietly."""
        subprocess.run(["git", *arguments], cwd=self.upstream, env=self.environment, check=True)

    def publish(self, commit: str, image: bytes) -> None:
        """Commit an image, compressed, and the pointer to it, as CI does."""
        folder = self.upstream / "unix" / commit
        folder.mkdir(parents=True)
        (folder / "www.unix").write_bytes(bz2.compress(image))
        (self.upstream / "unix" / "latest").write_text(f"{commit}\n")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", f"adding {commit} for unix")

    def compile(self, page: str, *options: str) -> bytes:
        """Build a unikernel that serves a page."""
        image = self.upstream.parent / "www.unix"
        define = f'-DPAGE="{page}"'
        subprocess.run(["cc", "-O2", "-static", define, *options, "-o", image, GUEST], check=True)
        return image.read_bytes()

    def run(self) -> None:
        """Tell the story."""
        self.say("CI has committed a first image to the deployment repository; the host clones it.")
        subprocess.run(["git", "init", "-q", str(self.upstream)], env=self.environment, check=True)
        (self.upstream / "mirage-hooks.toml").write_text(MANIFEST.format(port=self.port))
        self.publish("7f3a9c1", self.compile("Hello from the first image"))
        subprocess.run(
            ["git", "clone", "-q", str(self.upstream), str(self.host)],
            env=self.environment,
            check=True,
        )
        user = ["--user", "nobody"] if os.geteuid() == 0 else []
        self.show("mirage-hooks", "install", *user)
        self.show("mirage-hooks", "deploy")
        self.fetch("Hello from the first image")

        self.say("CI commits a second image. A pull is the deploy.")
        self.publish("b20d4e8", self.compile("Hello from the second image"))
        self.show("git", "pull", "-q")
        self.fetch("Hello from the second image")

        self.say("CI commits a broken image: it dies as it starts, and is rolled back.")
        self.publish("dead000", self.compile("never seen", "-DBROKEN"))
        self.show("git", "pull", "-q")
        self.fetch("Hello from the second image")

        self.say("What runs, what ran, and the network configuration of every boot.")
        self.show("mirage-hooks", "status")
        self.show("mirage-hooks", "history")
        self.show("sh", "-c", "mirage-hooks logs | grep network:")

        self.say("And nothing is left behind.")
        self.show("mirage-hooks", "uninstall", "--stop", "--yes")


def main() -> None:
    """Run the demo, and leave nothing behind whatever happens."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mirage-hooks-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            demo.run()
        finally:
            subprocess.run(
                ["mirage-hooks", "uninstall", "--stop", "--yes"],
                cwd=demo.host if demo.host.exists() else folder,
                env=demo.environment,
                capture_output=True,
                check=False,
            )
    print(f"\nThe demo took {time.monotonic() - began:.1f} s.")


if __name__ == "__main__":
    main()
