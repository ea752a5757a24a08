#!/usr/bin/env bash
# Makes everything that a release of the agent consists of: tarball, deb, rpm, bill of materials (CycloneDX)
# and their checksums.
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 AGENT_BINARY DIRECTORY" >&2
    exit 64
fi
agent=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
version=$("$agent" --version | awk '{ print $2 }')
name=rollcall-agent-$version-$(uname -m)
rm -f "$out"/rollcall-agent* "$out/SHA256SUMS"

# AL2023's own: a newer symbol would not start there.
newest=$(objdump -T "$agent" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -1)
if [ "$(printf '%s\nGLIBC_2.34\n' "$newest" | sort -V | tail -1)" != GLIBC_2.34 ]; then
    echo "$0: \`$agent\` needs $newest and AL2023 has 2.34: build on a system as old" >&2
    exit 1
fi

"$here/tarball.sh" "$agent" "$out/$name.tar.gz"
"$here/packages.sh" "$agent" "$version" "$out"

# OWASP's own generator, built once. Its serial number and time are what would differ the next time.
tools=${XDG_CACHE_HOME:-$HOME/.cache}/rollcall-dist
cyclonedx=0.5.9
if [ ! -x "$tools/$cyclonedx/bin/cargo-cyclonedx" ]; then
    timeout 1200 cargo install --quiet --locked --root "$tools/$cyclonedx" "cargo-cyclonedx@$cyclonedx"
fi
made=$(mktemp -u rollcall-XXXXXX)
repository=$PWD
trap 'find "$repository" -path "$repository/target" -prune -o -name "$made.json" -exec rm -f {} +' EXIT
SOURCE_DATE_EPOCH=315532800 "$tools/$cyclonedx/bin/cargo-cyclonedx" cyclonedx --quiet --format json \
    --manifest-path agent/Cargo.toml --override-filename "$made" --spec-version 1.5
grep -v '"serialNumber"' "agent/$made.json" | sed "s|path+file://$PWD|path+file:///rollcall|g" >"$out/$name.cdx.json"

cd "$out"
sha256sum rollcall-agent* >SHA256SUMS
cat SHA256SUMS
