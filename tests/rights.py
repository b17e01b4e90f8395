"""What a program without rights over the network is told, and the helper that can give it one."""

import shutil
import subprocess
import sys
from pathlib import Path

from mirage_hooks.boot import links, ownership, taps
from mirage_hooks.boot.errors import HostError
from namespace import Namespace

# A host as root would set it up, which is seen by what is started here and by nothing else: `ip
# netns exec` gives each command mounts of its own.
_SET_UP = """
set -e
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir -p /opt/etc /opt/work /opt/mirage-hooks/bin
mount -t overlay -o lowerdir=/etc,upperdir=/opt/etc,workdir=/opt/work overlay /etc
mkdir /etc/mirage-hooks
echo br-test >/etc/mirage-hooks/bridges
echo 'nobody ALL=(root) NOPASSWD: {helper} ""' >/etc/sudoers.d/mirage-hooks
cat >{helper} <<END
#!{python} -I
import sys
from mirage_hooks.boot.tap_helper import main
sys.exit(main())
END
chmod 755 {helper}
{change}
exec "$@"
"""

_PROGRAM = """
from mirage_hooks.boot import links, taps
from mirage_hooks.boot.errors import HostError
try:
    {statement}
except HostError as error:
    print(error, end="")
"""


def without_right(host: Namespace, statement: str) -> str:
    """Run a statement on a host as root without CAP_NET_ADMIN; return the error it ends with."""
    command = [
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-net_admin",
        sys.executable,
        "-I",
    ]
    done = subprocess.run(
        host.inside(*command, "-c", _PROGRAM.format(statement=statement)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def with_helper(change: str = "") -> list[str]:
    """Return what a command is put behind to be run where root has set the helper up.

    `change` is what root has changed there since.
    """
    script = _SET_UP.format(helper=taps.HELPER, python=sys.executable, change=change)
    return ["sh", "-c", script, "sh"]


def on_host(
    namespace: Namespace, command: list[str], text: str = "", change: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command on a host that is set up, after root has changed something there."""
    return subprocess.run(
        namespace.inside(*with_helper(change), *command),
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def missing_for_helper(namespace: Namespace) -> str | None:
    """Return what this machine lacks to try the helper, None where it has all."""
    if shutil.which("sudo") is None:
        return "the helper is run by sudo: apt-get install sudo"
    try:
        folders = [Path(sys.executable), Path(links.__file__), Path(sys.prefix)]
        ownership.refuse_foreign({above for one in folders for above in (one, *one.parents)})
    except HostError as error:
        return f"the helper would refuse to run from here: {error.message}"
    tried = on_host(namespace, ["true"])
    return f"/etc cannot be covered here: {tried.stderr}" if tried.returncode != 0 else None
