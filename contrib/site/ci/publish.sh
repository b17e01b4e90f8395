#!/bin/sh
# Publish what build.sh built. What it needs is in the environment, where no log shows it:
#   DEPLOYMENT_URL    the deployment repository, such as git@git.example.org:me/deployment.git
#   DEPLOYMENT_KEY    a private key that may push there, in one line: base64 -w 0 <key
#   DEPLOYMENT_HOST   the server's lines of known_hosts: ssh-keyscan git.example.org
#   MIRAGE_HOOKS      what pip is to install where there is no mirage-hooks, pinned to a commit, such as
#                     git+https://git.example.org/me/mirage-hooks@0123456789abcdef0123456789abcdef01234567
# The author is who made the source commit; GIT_COMMITTER_NAME and GIT_COMMITTER_EMAIL say who commits, CI by default.
# Not even where somebody traces this does a log show the key.
set +x -eu
: "${DEPLOYMENT_URL:?}" "${DEPLOYMENT_HOST:?}" "${DEPLOYMENT_KEY:?}"
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# When a job is cancelled, too: not every shell has that for an exit.
trap 'exit 1' HUP INT TERM

printf '%s' "$DEPLOYMENT_KEY" | base64 -d >"$work/key" || {
    echo "DEPLOYMENT_KEY is not one line as base64 -w 0 makes it" >&2
    exit 1
}
printf '%s\n' "$DEPLOYMENT_HOST" >"$work/known_hosts"
unset DEPLOYMENT_KEY
export GIT_SSH_COMMAND="ssh -F /dev/null -i '$work/key' -o IdentitiesOnly=yes -o BatchMode=yes \
-o ConnectTimeout=30 -o StrictHostKeyChecking=yes -o 'UserKnownHostsFile=\"$work/known_hosts\"'"

if ! command -v mirage-hooks >/dev/null; then
    : "${MIRAGE_HOOKS:?says what to install: see the first lines of ci/publish.sh}"
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    $as_root apt-get install -y -qq --no-install-recommends openssh-client python3-venv
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet "$MIRAGE_HOOKS"
    PATH="$work/venv/bin:$PATH"
fi

GIT_AUTHOR_NAME=$(git log -1 --format=%an)
GIT_AUTHOR_EMAIL=$(git log -1 --format=%ae)
: "${GIT_COMMITTER_NAME:=CI}" "${GIT_COMMITTER_EMAIL:=ci@localhost}"
export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL

# Images stay where they are, if the server can do that. Of an empty repository not every server says what its
# branch is to be called.
timeout --foreground 300 git -c init.defaultBranch=main \
    clone --quiet --depth 1 --filter=blob:limit=64k --no-checkout "$DEPLOYMENT_URL" "$work/deployment"
make --no-print-directory publish DEPLOYMENT="$work/deployment"
