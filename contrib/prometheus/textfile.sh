#!/bin/sh
# Write the metrics of a repository where node_exporter's textfile collector finds them, whole or not at all.
# From cron: * * * * * /usr/local/bin/mirage-hooks-textfile /srv/deployment /var/lib/prometheus/node-exporter/deployment.prom
set -eu
# The collector reads *.prom only.
new=$2.$$.new
trap 'rm -f "$new"' EXIT
"${MIRAGE_HOOKS:-mirage-hooks}" -C "$1" status --prometheus >"$new"
chmod 644 "$new"
mv "$new" "$2"
