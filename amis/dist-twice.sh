#!/usr/bin/env bash
# Shows that the same sources make the same release: builds them in two directories, each from nothing, and
# compares every checksum. Takes twice as long as a release does.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for copy in one a-directory-with-another-name; do
    mkdir "$work/$copy"
    # What is in the tree now, committed or not; nothing that was built.
    (cd "$here" && git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf -) |
        tar -xf - -C "$work/$copy"
    make -C "$work/$copy" --no-print-directory dist-parts
    mv "$work/$copy/target/dist/SHA256SUMS" "$work/$copy.sums"
    rm -rf "${work:?}/$copy"
done

if diff "$work/one.sums" "$work/a-directory-with-another-name.sums"; then
    echo "the same from both directories:"
    cat "$work/one.sums"
else
    echo "$0: the two directories gave different files" >&2
    exit 1
fi
