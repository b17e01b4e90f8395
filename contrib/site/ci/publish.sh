#!/bin/sh
# Publish what build.sh built. What it needs is in the environment, where no log shows it:
#   DEPLOYMENT_URL    the deployment repository, such as git@git.example.org:me/deployment.git
#   DEPLOYMENT_KEY    a private key that may push there, in one line: base64 -w 0 <key
#   DEPLOYMENT_HOST   the server's lines of known_hosts: ssh-keyscan git.example.org
#   MIRAGE_HOOKS      what pip is to install, where there is no mirage-hooks; mirage-hooks by default
set -eu
: "${DEPLOYMENT_URL:?}" "${DEPLOYMENT_KEY:?}" "${DEPLOYMENT_HOST:?}"
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '%s' "$DEPLOYMENT_KEY" | base64 -d >"$work/key"
printf '%s\n' "$DEPLOYMENT_HOST" >"$work/known_hosts"
unset DEPLOYMENT_KEY
export GIT_SSH_COMMAND="ssh -F /dev/null -i $work/key -o IdentitiesOnly=yes -o BatchMode=yes \
-o ConnectTimeout=30 -o StrictHostKeyChecking=yes -o UserKnownHostsFile=$work/known_hosts"

if ! command -v mirage-hooks >/dev/null; then
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root=sudo
    $as_root apt-get install -y -qq --no-install-recommends openssh-client python3-venv
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet "${MIRAGE_HOOKS:-mirage-hooks}"
    PATH="$work/venv/bin:$PATH"
fi

git clone --quiet --depth 1 "$DEPLOYMENT_URL" "$work/deployment"
git -C "$work/deployment" config user.name CI
git -C "$work/deployment" config user.email ci@localhost
make --no-print-directory publish DEPLOYMENT="$work/deployment"
