#!/usr/bin/env bash
# Lays everything that `files` lists below a directory, as it lies on a node.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 AGENT_BINARY DIRECTORY" >&2
    exit 64
fi
agent=$1 root=$2
here=$(cd "$(dirname "$0")" && pwd)

umask 022
mkdir -p "$root"
while read -r mode source place; do
    case $mode in '' | '#'*) continue ;; esac
    case $source in
        -) install -d -m "$mode" "$root$place" ;;
        agent)
            install -D -m "$mode" "$agent" "$root$place"
            if command -v strip >/dev/null; then strip "$root$place"; fi
            ;;
        *) install -D -m "$mode" "$here/../$source" "$root$place" ;;
    esac
done <"$here/files"
