#!/usr/bin/env bash
# The image proves itself: systemd has nothing to say of our units, and the agent finds nothing wrong with the image it is in.
set -euo pipefail

units=(rollcall-join.service rollcall-agent.service rollcall-fallback.service rollcall-canary.service rollcall-gpu-reset.service
    rollcall-gpu-reset.path rollcall-nodeadm@run.service rollcall-repair@.service)
said=$(systemd-analyze verify --man=no "${units[@]/#//usr/lib/systemd/system/}" 2>&1) || {
    echo "$said" >&2
    echo "check.sh: systemd-analyze verify refuses a unit" >&2
    exit 1
}
# Of our units: what it says of others is not ours to mend.
if said=$(grep -F rollcall <<<"$said"); then
    echo "$said" >&2
    echo "check.sh: systemd-analyze verify has something to say of a unit" >&2
    exit 1
fi
exec /usr/bin/rollcall-agent check-image
