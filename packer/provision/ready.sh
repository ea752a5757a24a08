#!/usr/bin/env bash
# Nothing is changed before this machine is what the build was asked for, and has finished booting.
set -euo pipefail

fail() {
    echo "ready.sh: $*" >&2
    exit 1
}

# cloud-init writes users, keys and mounts until its last stage ends.
deadline=$((SECONDS + 300))
until [ "$(systemctl show --property=ActiveState --value cloud-final.service)" = active ]; do
    if systemctl is-failed --quiet cloud-final.service; then break; fi
    [ "$SECONDS" -lt "$deadline" ] || fail "cloud-final.service has not ended within 300 s: systemctl status cloud-final"
    sleep 0.2
done

# shellcheck disable=SC1091 # of this machine
id=$(. /etc/os-release && echo "$ID-${VERSION_ID%%.*}")
[ "$id" = amzn-2023 ] || fail "this is $id and not Amazon Linux 2023: build from an EKS AL2023 image"

machine=$(uname -m)
case $machine in
    aarch64) machine=arm64 ;;
esac
[ "$machine" = "$ARCHITECTURE" ] || fail "this is a machine of $machine, and the image is for $ARCHITECTURE"

kubelet=$(kubelet --version)
case $kubelet in
    "Kubernetes v$KUBERNETES_VERSION."*) ;;
    *) fail "the source image has kubelet \`$kubelet\`, and the image is for $KUBERNETES_VERSION" ;;
esac

# A resolver that has chosen has thrown the other drivers away.
for chosen in /opt/nvidia/current /opt/nvidia/.driver-flavor /opt/nvidia/.loaded; do
    [ ! -e "$chosen" ] || fail "$chosen is there: the driver has been chosen for this machine's GPU, build on an instance without one"
done
echo "ready: $id, $machine, $kubelet"
