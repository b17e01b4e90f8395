"""The hook as it is dropped: one file that is both sh and Python.

sh decides that nothing changed, and ends. Python does the rest. An interpreter path in a #! line
would be cut at 255 bytes and at a space; here it stands quoted in sh.
"""

import re
import shlex
import subprocess
from pathlib import Path

from mirage_hooks.boot import settled
from mirage_hooks.boot.errors import HostError

# The hooks that are dropped, and the module each calls.
HOOKS = {
    "post-merge": "post_merge",
    "post-rewrite": "post_rewrite",
}

_MARK = "# mirage-hooks: dropped by `mirage-hooks install`, removed by `mirage-hooks uninstall`."

# To Python, everything up to the closing quotes is one string. The sh part has no backslash (an
# escape there) and no three quotes in a row.
_TEMPLATE = """\
#!/bin/sh
{mark}
''':'
state=${{0%/*}}/../mirage-hooks
if [ -x "$0.legacy" ]; then "$0.legacy" "$@"; fi
read -r boot </proc/sys/kernel/random/boot_id
read -r head <"${{GIT_DIR:-.git}}/HEAD"
nl='
'
# A monitor that was killed could not say so: is the process with this pid and start time there?
alive() {{
    read -r stat <"/proc/$1/stat" || return 1
    set -f
    set -- "$2" ${{stat##*) }}
    [ "$1" = "${{21}}" ] && [ "$2" != Z ]
}}
{{
    now="{format} $boot $head$nl"
    while IFS= read -r line || [ -n "$line" ]; do now=$now$line$nl; done <"$state/host.toml"
    now=$now$(git cat-file --batch-check='%(objectname)' <"$state/watched")$nl
    was=
    while IFS= read -r line; do was=$was$line$nl; done <"$state/settled"
    while read -r pid start; do
        alive "$pid" "$start" || now=gone
    done <"$state/monitors" || now=gone
}} 2>/dev/null
if [ "$now" = "$was" ]; then exit 0; fi
python={python}
if [ ! -x "$python" ]; then
    echo "mirage-hooks: nothing was deployed: $python is gone;" \
        "install mirage-hooks again, then run: mirage-hooks install" >&2
    exit 0
fi
exec "$python" -I "$0" "$@"
':'''
import sys
try:
    from mirage_hooks.hooks.{module} import main
except ImportError as error:
    print(f"mirage-hooks: nothing was deployed: {{error}} ({{sys.executable}});",
          "install mirage-hooks again, then run: mirage-hooks install", file=sys.stderr)
    sys.exit(0)
sys.exit(main(sys.argv[0], sys.argv[1:]))
"""


def render(hook: str, python: str) -> bytes:
    """Return the text of a hook that runs under an interpreter. Raises HostError."""
    if re.search(r"[\\\n\r]|'''", python):
        raise HostError(
            f"the interpreter's path {python!r} cannot stand in a hook",
            "install mirage-hooks under a path without backslash, line end and ''' in it",
        )
    try:
        return _TEMPLATE.format(
            mark=_MARK, format=settled.FORMAT, python=shlex.quote(python), module=HOOKS[hook]
        ).encode()
    except UnicodeEncodeError:
        raise HostError(f"the interpreter's path {python!r} is not UTF-8") from None


def is_ours(path: Path) -> bool:
    """Whether a hook was dropped by us, by this version or another."""
    try:
        with path.open("rb") as file:
            return _MARK.encode() in file.read(4096)
    except OSError:
        return False


def probe(python: str) -> str | None:
    """Return why an interpreter cannot run mirage-hooks isolated, as the hook does; None if it can.

    Isolated it sees no `pip install --user` and no PYTHONPATH.
    """
    command = [python, "-I", "-c", "import mirage_hooks.boot.converge"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1]


def interpreter(path: Path) -> str | None:
    """Return the interpreter that a dropped hook runs, None where the file does not tell."""
    match = re.search(r"^python=(.*)$", path.read_text(errors="replace"), re.MULTILINE)
    try:
        words = shlex.split(match[1]) if match else []
    except ValueError:
        return None
    return words[0] if words else None
