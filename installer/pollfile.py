"""The script that polls: sh and Python in one file, as a hook is.

Its sh fetches, bounded in time and never asking anybody, and ends where there is nothing to do:
nothing came, nothing was wrong, and what runs is as it should be. Python does the rest. It stands
in the state folder, for cron and units to run.
"""

from mirage_hooks.boot import pins
from mirage_hooks.boot.environment import LEAKING
from mirage_hooks.hooks.poll import LOCK
from mirage_hooks.installer.hookfile import NEWLINE, compare_settled, compose

# `state` is where the script is, maybe by a relative path. git is run where `git fetch` is run by
# hand: an upstream's path may be relative, too.
_PLACE = """\
unset {leaking} CDPATH
export GIT_TERMINAL_PROMPT=0 GIT_ASKPASS= SSH_ASKPASS_REQUIRE=never GCM_INTERACTIVE=never
# Python's own look for git is silent: here it is said what is missing.
export GIT_PYTHON_REFRESH=quiet
cd -P "$state/.." || exit 6
GIT_DIR=$PWD state=$PWD/mirage-hooks
export GIT_DIR
case $PWD in */.git) cd .. ;; esac
python() {{ exec "$python" -I "$state/poll" "$state" "$@"; }}
[ -O "$state" ] || python bind
if [ -e "$state/paused" ]; then exit 0; fi
for tool in git flock setsid timeout; do
    command -v "$tool" >/dev/null || python missing "$tool"
done"""

# Whoever has the lock does what is to do. Nothing that is started here holds it but Python.
_LOCK = """\
exec {lock}>>"$state/poll.lock"
flock -n {lock}
case $? in 0) ;; 1) exit 0 ;; *) exit 6 ;; esac"""

# Python reads the host file, and leaves what is in it for sh, which sees whether it is that one
# still; and whether git obeys somebody else here, which Python has a closer look at.
_BOUND = """\
bound() {{
    host= was=
    while IFS= read -r line || [ -n "$line" ]; do host=$host$line$nl; done <"$state/host.toml"
    {{
        read -r branch
        read -r seconds
        while IFS= read -r line; do was=$was$line$nl; done
    }} <"$state/poll.bound"
    [ "$host" = "$was" ] && [ -O "$GIT_DIR" ] && [ -O "$GIT_DIR/config" ]
}} 2>/dev/null
if ! bound; then
    (python bind) {lock}>&- || exit
    bound
fi"""

_FETCH = """\
log=$state/fetch.log remote= ref= theirs=refs/heads/$branch
listed=$(git config --get-regexp '^branch[.]' 2>"$log" {lock}>&-)
code=$?
if [ "$code" = 1 ]; then code=0; fi
while read -r key value; do
    case $key in
        "branch.$branch.remote") remote=$value ;;
        "branch.$branch.merge") ref=$value ;;
    esac
done <<END
$listed
END
if [ "$code" = 0 ] && [ -n "$remote" ] && [ -n "$ref" ]; then
    theirs={upstream}
    LC_ALL=C setsid timeout -k 5 "$seconds" git fetch --no-recurse-submodules --no-auto-gc \
--no-write-fetch-head "$remote" "+$ref:$theirs" </dev/null >"$log" 2>&1 {lock}>&- &
    fetch=$!
    trap 'kill "$fetch" 2>/dev/null; exit 143' HUP INT TERM
    wait "$fetch"
    code=$?
    trap - HUP INT TERM
    if [ "$code" = 0 ]; then {{ true >"$state/poll.fetched"; }} 2>/dev/null; fi
fi"""

# Calm is what has no problem that lasts, no trigger, and no history that was taken back: git marks
# that with a plus sign (git-fetch(1), Output). Commits that were not pushed are nobody's business.
_CALM = """\
calm=
if [ "$code" = 0 ] && [ ! -e "$state/poll.json" ] && [ ! -s "$GIT_DIR/mirage-hooks.trigger" ]; then
    calm=yes names=
    while read -r mark line; do if [ "$mark" = + ]; then calm=; fi; done <"$log"
    {{ while IFS= read -r line; do names=$names$line$nl; done <"$state/watched"; }} 2>/dev/null
    found=$(GIT_NO_LAZY_FETCH=1 git cat-file --batch-check='%(objectname)' 2>/dev/null \
{lock}>&- <<END
${{names}}refs/heads/$branch
$theirs
END
)
    theirs=${{found##*"$nl"}}
    found=${{found%"$nl"*}}
    ours=${{found##*"$nl"}}
    found=${{found%"$nl"*}}
    [ "$theirs" = "$ours" ] ||
        git merge-base --is-ancestor "$theirs" "$ours" 2>/dev/null {lock}>&- || calm=
fi
if [ -n "$calm" ]; then
{settled}
fi"""
_RUN = 'python fetched "$code"'


def render(python: str) -> bytes:
    """Return the text of the script that polls, under an interpreter. Raises HostError."""
    settled = compare_settled('head="ref: refs/heads/$branch"', "$found")
    leaking = " ".join(sorted(LEAKING))
    body = "\n".join([_PLACE, _LOCK, NEWLINE, _BOUND, _FETCH, _CALM, _RUN]).format(
        leaking=leaking, lock=LOCK, upstream=pins.UPSTREAM, settled=settled
    )
    return compose("poll", python, '"${0%/*}"', [], body, done="deployed", lost=6)
