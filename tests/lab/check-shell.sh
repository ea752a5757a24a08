#!/usr/bin/env bash
# Every shell script parses; where shellcheck is installed it is also clean.
set -euo pipefail
cd "$(dirname "$0")/../.."
mapfile -t scripts < <(git ls-files -co --exclude-standard | while read -r f; do
    [ -f "$f" ] && head -c 64 "$f" | grep -qaE '^#!.*\b(ba)?sh\b' && echo "$f"
done)
for script in "${scripts[@]}"; do bash -n "$script"; done
if command -v shellcheck >/dev/null; then shellcheck "${scripts[@]}"; else
    echo "check: shellcheck is not installed; the ${#scripts[@]} scripts were only parsed" >&2
fi
