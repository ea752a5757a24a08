#!/usr/bin/env bash
# Packs the agent as it is installed on a node: `tar -xzf … -C /` puts every file where it belongs.
# The same inputs give the same bytes, so that the tarball's SHA-256 names it.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 AGENT_BINARY TARBALL" >&2
    exit 64
fi
agent=$1 tarball=$2
systemd=$(cd "$(dirname "$0")/../systemd" && pwd)
stage=$(mktemp -d)
trap 'rm -rf "$stage" "$tarball.new"' EXIT

units=$stage/etc/systemd/system
install -D -m 0755 "$agent" "$stage/usr/bin/rollcall-agent"
if command -v strip >/dev/null; then strip "$stage/usr/bin/rollcall-agent"; fi
install -d -m 0755 "$units" "$units/kubelet.service.d"
install -m 0644 "$systemd"/*.service "$systemd"/*.path "$units/"
install -m 0644 "$systemd/kubelet.service.d/10-rollcall.conf" "$units/kubelet.service.d/"
install -d -m 0755 "$stage/usr/libexec/rollcall"
install -m 0755 "$systemd/libexec/fallback" "$systemd/libexec/repair" "$stage/usr/libexec/rollcall/"
chmod 0755 "$stage"

tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --format=gnu -C "$stage" -cf - . |
    gzip -n -1 >"$tarball.new"
mv -f "$tarball.new" "$tarball"
