#!/usr/bin/env bash
# Packs the agent as it is installed on a node: `tar -xzf … -C /` puts every file where it belongs.
# The same inputs give the same bytes, so that the tarball's SHA-256 names it.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 AGENT_BINARY TARBALL" >&2
    exit 64
fi
agent=$1 tarball=$2
stage=$(mktemp -d)
trap 'rm -rf "$stage" "$tarball.new"' EXIT

"$(dirname "$0")/stage.sh" "$agent" "$stage"
chmod 0755 "$stage"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=gnu -C "$stage" -cf - . |
    gzip -n -1 >"$tarball.new"
mv -f "$tarball.new" "$tarball"
