#!/bin/sh
# The steps of the practice that mirage-hooks takes the place of, as the post-merge hook of a clone:
# the domain is ended, its image unpacked, and a new domain made.
set -eu
name=$(git config site.name)
image=$PWD/xen/$(cat xen/latest)/$(echo "$name" | tr -d .).xen
if xl list "$name" >/dev/null 2>&1; then
    xl destroy "$name"
fi
bunzip2 --keep --force "$image.bz2"
sed "s,@NAME@,$name,; s,@KERNEL@,$image,; s,@DISK@,," xl.conf.in >".git/$name.xl"
xl create -q ".git/$name.xl"
