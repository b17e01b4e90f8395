"""The hook as it is dropped: one file that is both sh and Python.

sh runs the hook that was here before, decides that nothing of ours changed, and ends. Python does
the rest. An interpreter path in a #! line would be cut at 255 bytes and at a space; here it stands
quoted in sh. The script that polls (pollfile.py) is made the same way.
"""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mirage_hooks.boot import settled, upstream
from mirage_hooks.boot.errors import HostError


@dataclass(frozen=True)
class Hook:
    """A hook that is dropped: the module it calls, and what githooks(5) says of it.

    `reads` says whether git gives it lines on standard input; `blocks` whether its exit code can
    stop git.
    """

    module: str
    reads: bool = False
    blocks: bool = False


HOOKS = {
    "post-merge": Hook("post_merge"),
    "post-rewrite": Hook("post_rewrite", reads=True),
    "post-receive": Hook("post_receive", reads=True),
    "pre-push": Hook("pre_push", reads=True, blocks=True),
}

_MARK = "# mirage-hooks: dropped by `mirage-hooks install`, removed by `mirage-hooks uninstall`."

# To Python, everything up to the closing quotes is one string. The sh part has no backslash (an
# escape there) and no three quotes in a row.
_TEMPLATE = """\
#!/bin/sh
{mark}
''':'
state={state}
{parts}
python={python}
if [ ! -x "$python" ]; then
    echo "mirage-hooks: nothing was {done}: $python is gone, or out of this user's reach;" \
        "install mirage-hooks again, then run: mirage-hooks install" >&2
    exit {lost}
fi
{run}
':'''
import sys
try:
    from mirage_hooks.hooks.{module} import main
except ImportError as error:
    print(f"mirage-hooks: nothing was {done}: {{error}} ({{sys.executable}});",
          "install mirage-hooks again, then run: mirage-hooks install", file=sys.stderr)
    sys.exit({lost})
sys.exit(main(sys.argv[1], sys.argv[2:]))
"""

# What git says on standard input is for the hook that was here before, and for us. The dot keeps
# the last line end, which sh would take off.
_READ = """\
input=$(cat && echo .)
input=${input%.}"""
_GIVE = 'printf %s "$input" 2>/dev/null | '

# The hooks of others that placing.py sets aside; pre-commit, where it is, names us `.legacy`.
_THEIRS = """\
kept=${{0%.legacy}}.kept
if [ -e "$kept" ] && [ -e "$0.legacy" ]; then kept=$0.legacy; fi
for theirs in "${{0%.legacy}}.lefthook" "$kept"; do
    if [ -x "$theirs" ]; then
        {give}"$theirs" "$@" || {failed}
    fi
done"""
_REPORT = 'echo "mirage-hooks: ${theirs##*/} ended with $?" >&2'

# Only what moves the branch that deploys is ours. Who may not read which that is asks Python; so
# does whoever finds the host file changed since.
_RELEVANT = """\
ref=
{ read -r ref <"$state/watched"; } 2>/dev/null
ref=${ref%%:*}
# Not by its date, which mv, cp -p and rsync bring along.
cmp -s "$state/host.toml" "$state/bound" 2>/dev/null || ref=
ours=
while IFS= read -r line; do
{old}    remote=${line##* }; line=${line% *}
    new=${line##* }
    case $new in *[!0]*) ;; *) continue ;; esac
    if [ -z "$ref" ] || [ "$remote" = "$ref" ]; then {mine}; fi
done <<END
$input
END
if [ -z "$ours" ]; then exit 0; fi"""

# Read from the right: what is pushed may be named with spaces (`git push origin ":/words w:main"`).
_OLD = """\
    old=${line##* }; line=${line% *}
"""

# What is watched tells of the settled state only, and of the guests that run here: so a push that
# ends in that state, and changes none of the watched paths on the way there, from where all run.
_UNTOUCHED = """\
nl='
'
untouched() {
    range=$1..$2 new=$2 names= now= was= found=
    set --
    while IFS= read -r line; do
        set -- "$@" "${line#*:}"
        names=$names$new:${line#*:}$nl
    done <"$state/watched"
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in *guests*) return 1 ;; esac
        now=$now$line$nl
    done <"$state/host.toml"
    found=$(printf %s "$names" | GIT_NO_LAZY_FETCH=1 git cat-file --batch-check='%(objectname)')
    now=$now$found$nl
    { read -r line; while IFS= read -r line; do was=$was$line$nl; done; } <"$state/settled"
    [ $# -gt 0 ] && [ "$now" = "$was" ] || return 1
    touched=$(git --literal-pathspecs rev-list -1 --full-history "$range" -- "$@") &&
        [ -z "$touched" ]
}"""

# A poll moves the branch, and converges by itself when that has been done.
_POLL = f'if [ "${upstream.POLLED_BY}" -ef "$state" ]; then exit 0; fi'

NEWLINE = """\
nl='
'"""
# What a partial clone has not fetched yet is new: it is no hook's business to fetch it.
WATCHED = "$(GIT_NO_LAZY_FETCH=1 git cat-file --batch-check='%(objectname)' <\"$state/watched\")"
# `head` is what HEAD is to hold, `watched` what git says of the watched paths.
_SETTLED = """\
read -r boot </proc/sys/kernel/random/boot_id
{head}
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
    now=$now{watched}$nl
    was=
    while IFS= read -r line; do was=$was$line$nl; done <"$state/settled"
    while read -r pid start; do
        alive "$pid" "$start" || now=gone
    done <"$state/monitors" || now=gone
}} 2>/dev/null
if [ "$now" = "$was" ]; then exit 0; fi"""
_EXEC = 'exec "$python" -I "$0" "$state" "$@"'
_DEFAULT_STATE = "${0%/*}/../mirage-hooks"

_HEADS = {
    # A pull into another branch than the one that deploys is worth a word of the converger's.
    "post-merge": 'read -r head <"${GIT_DIR:-.git}/HEAD"',
    "post-rewrite": 'read -r head <"${GIT_DIR:-.git}/HEAD"',
    "post-receive": 'head="ref: $ref"',
}


def render(hook: str, python: str, state: Path | None = None) -> bytes:
    """Return the text of a hook that runs under an interpreter. Raises HostError.

    `state` is the state folder, where that is not beside the folder that hooks are in.
    """
    kind = HOOKS[hook]
    parts = [_READ] if kind.reads else []
    failed = "exit $?" if kind.blocks else _REPORT
    parts.append(_THEIRS.format(give=_GIVE if kind.reads else "", failed=failed))
    if kind.blocks:
        mine = 'untouched "$old" "$new" 2>/dev/null || ours=yes'
        parts += [_UNTOUCHED, _RELEVANT.replace("{old}", _OLD).replace("{mine}", mine)]
    elif hook == "post-receive":
        parts.append(_RELEVANT.replace("{old}", "").replace("{mine}", "ours=yes"))
    if hook == "post-merge":
        parts.append(_POLL)
    if hook in _HEADS:
        parts += [NEWLINE, compare_settled(_HEADS[hook], WATCHED)]
    run = f'{_GIVE}"$python" -I "$0" "$state" "$@"' if kind.blocks else _EXEC
    return compose(
        kind.module,
        python,
        _DEFAULT_STATE if state is None else _quoted("state folder", str(state)),
        parts,
        f"{run}\nexit $?" if kind.blocks else run,
        done="verified" if kind.blocks else "deployed",
    )


def compare_settled(head: str, watched: str) -> str:
    """Return the sh that ends with 0 where the state is settled; it takes NEWLINE before it.

    `head` is sh that sets what HEAD is to hold, `watched` gives what git says of watched paths.
    """
    return _SETTLED.format(format=settled.FORMAT, head=head, watched=watched)


def compose(
    module: str, python: str, state: str, parts: list[str], run: str, done: str, lost: int = 0
) -> bytes:
    """Return a file that is sh, which sets `state`, does `parts` and `run`, and a Python module.

    `done` says what was not, where there is no interpreter; it ends with `lost` then. Raises
    HostError.
    """
    try:
        return _TEMPLATE.format(
            mark=_MARK,
            state=state,
            parts="\n".join(parts),
            python=_quoted("interpreter", python),
            done=done,
            lost=lost,
            run=run,
            module=module,
        ).encode()
    except UnicodeEncodeError:
        raise HostError(f"a path that {module} needs is not UTF-8: {python}, {state}") from None


def _quoted(what: str, path: str) -> str:
    if re.search(r"[\\\n\r]|'''", path):
        raise HostError(
            f"the path of the {what}, {path!r}, cannot stand in a hook",
            "put it under a path without backslash, line end and ''' in it",
        )
    return shlex.quote(path)


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
