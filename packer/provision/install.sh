#!/usr/bin/env bash
# Installs the agent from its tarball: every file of amis/files, and what starts at boot. Again does nothing.
set -euo pipefail

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

actual=$(sha256sum "$AGENT_TARBALL" | cut -d ' ' -f 1)
[ "$actual" = "$AGENT_SHA256" ] || fail "$AGENT_TARBALL has sha256 $actual and not $AGENT_SHA256: it is another tarball"

# What is there already keeps its own modes: /etc and /usr are the image's.
tar -xzf "$AGENT_TARBALL" -C / --no-overwrite-dir --same-owner --same-permissions

# Files come with the label of whoever unpacked them; the policy says what they must have.
if command -v restorecon >/dev/null && [ -e /sys/fs/selinux/enforce ]; then
    tar -tzf "$AGENT_TARBALL" | sed -nE 's|^\./(.*[^/])$|/\1|p' | restorecon -F -f -
fi

version=$(/usr/bin/rollcall-agent --version)
[ "$version" = "rollcall-agent $AGENT_VERSION" ] ||
    fail "the tarball holds \`$version\`, and the image was to have $AGENT_VERSION"

systemctl daemon-reload
# As our preset says: ours start at boot, nodeadm-run and kubelet do not. Disabled and not masked: nodeadm-run is the fallback.
# Nothing is started: this machine is no node.
systemctl preset --no-reload rollcall-join.service rollcall-agent.service rollcall-gpu-reset.path \
    nodeadm-run.service kubelet.service
systemctl daemon-reload
rm -f "$AGENT_TARBALL"
echo "installed: $version"
