#!/usr/bin/env bash
# Writes what the image holds, for people and for `control ami`: no time in it, so that two builds of the same differ in nothing.
set -euo pipefail

# json_list: the lines of standard input as a JSON list of strings.
json_list() {
    sed -E 's/\\/\\\\/g; s/"/\\"/g; s/^(.*)$/"\1"/' | paste -sd , - | sed 's/^/[/; s/$/]/'
}

packages() {
    if command -v rpm >/dev/null && rpm -q bash >/dev/null 2>&1; then
        rpm -qa --queryformat '%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE} %{ARCH}\n'
    elif command -v dpkg-query >/dev/null; then
        dpkg-query -W -f '${Package} ${Version} ${Architecture}\n' 2>/dev/null || true
    fi | LC_ALL=C sort
}

# The driver that a folder holds, by its NVML library: libnvidia-ml.so.580.95.05.
driver_in() {
    find "$1" -name 'libnvidia-ml.so.*.*' -printf '%f\n' 2>/dev/null | sed 's/^libnvidia-ml\.so\.//' | LC_ALL=C sort -V | tail -n 1
}

# One entry for each driver tree, of which the resolver takes one at the first boot; older images have one driver, in place.
trees() {
    local tree
    for tree in /opt/nvidia/*/; do
        [ -d "$tree" ] || continue
        printf '{"name": "%s", "version": "%s"}\n' "$(basename "$tree")" "$(driver_in "$tree")"
    done
    [ -z "$(driver_in /usr/lib64/)" ] || printf '{"name": "system", "version": "%s"}\n' "$(driver_in /usr/lib64/)"
}

kernels() {
    [ ! -d /lib/modules ] || find /lib/modules/ -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | LC_ALL=C sort
}

mkdir -p "$(dirname "$IMAGE_MANIFEST")"
kubelet=$(kubelet --version)
cat >"$IMAGE_MANIFEST.new" <<END
{
  "schema": 1,
  "image": {"name": "$IMAGE_NAME", "source": "$SOURCE_AMI", "architecture": "$ARCHITECTURE"},
  "agent": {"version": "$AGENT_VERSION", "sha256": "$AGENT_SHA256"},
  "kubernetes": {"version": "$KUBERNETES_VERSION", "kubelet": "${kubelet##* }"},
  "driver": {"branch": "$DRIVER_BRANCH", "trees": [$(trees | paste -sd , -)]},
  "kernel": {"running": "$(uname -r)", "installed": $(kernels | json_list)},
  "packages": $(packages | json_list)
}
END
chmod 0644 "$IMAGE_MANIFEST.new"
mv -f "$IMAGE_MANIFEST.new" "$IMAGE_MANIFEST"
