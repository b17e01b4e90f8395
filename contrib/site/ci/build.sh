#!/bin/sh
# Build one variant on a CI system's Debian 12 or later, or Ubuntu 24.04 or later, with nothing prepared.
# Usage: build.sh VARIANT [NAME=VALUE...]: what `make configure.VARIANT build` takes.
set -eu
variant=$1
shift
as_root=
[ "$(id -u)" -eq 0 ] || as_root=sudo
$as_root apt-get update -qq
$as_root apt-get install -y -qq --no-install-recommends \
    bubblewrap bzip2 ca-certificates gcc git jekyll libc6-dev m4 make opam patch pkg-config rsync unzip

# No question is asked; packages of Debian that a library needs are installed.
export OPAMYES=1 OPAMCONFIRMLEVEL=unsafe-yes OPAMROOTISOK=1
# Containers have no right to make a sandbox.
[ -d "${OPAMROOT:-$HOME/.opam}" ] || opam init --bare --disable-sandboxing
# The compiler that ocaml-solo5 1.x is made for.
opam switch set unikernel 2>/dev/null || opam switch create unikernel ocaml-base-compiler.5.4.1
opam install mirage.4.11.1
opam exec -- make "configure.$variant" build "$@"
