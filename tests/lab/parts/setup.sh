#!/usr/bin/env bash
# Gets the lab's real parts (Kubernetes, nodeadm, etcd, containerd, ...) into a cache outside the tree, each keyed by its
# version and the hash of what it is made from. Idempotent; installs nothing on this machine and starts nothing.
#
#   setup.sh          get what is missing, then say what is there
#   setup.sh --where  print the folder that holds parts.json, whether or not it is filled
#
# A part that cannot be had here (no Go, no apt-get, no network) is skipped and named, with exit code 0: the lab then uses its
# stand-ins. Exit code 1: nothing could be tried (the cache cannot be written, another setup holds it, the pins differ).
# E2E_SETUP_SECONDS bounds the whole (1200); what is not done by then is skipped too, and a later run goes on from there.
# parts.json: {part: {version, path, state: "ready" | "skipped", why?}}.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck disable=SC1091 # beside this file
. "$here/versions.env"
limit=${E2E_SETUP_SECONDS:-1200} who=e2e-setup
# shellcheck source=tests/lab/parts/lib.sh
. "$here/lib.sh"
text_hash() { printf '%s' "$*" | sha256sum | head -c 10; }

arch=$(uname -m)
# shellcheck disable=SC1091 # of this machine
. /etc/os-release 2>/dev/null || true
debian_release=${VERSION_CODENAME:-unknown}

kubernetes_dir=$base/kubernetes-$KUBERNETES_VERSION-$(hash kubernetes/main.go kubernetes/go.mod kubernetes/go.sum)
nodeadm_dir=$base/nodeadm-$NODEADM_VERSION-$(hash nodeadm/go.mod nodeadm/go.sum)
plugin_dir=$base/device-plugin-double-$(hash device-plugin-double/main.go device-plugin-double/go.mod device-plugin-double/go.sum)
debian_dir=$base/debian-$debian_release-$(text_hash "$arch" "$DEBIAN_PACKAGES")
awscli_dir=$base/awscli-$AWSCLI_VERSION
pause_dir=$base/pause-$(hash pause/pause.c)

set_dir=$base/set-$(text_hash "$kubernetes_dir" "$nodeadm_dir" "$debian_dir" "$awscli_dir" "$pause_dir" "$plugin_dir")

if [ "${1:-}" = --where ]; then
    echo "$set_dir"
    exit 0
fi

build_kubernetes() {
    local minor=${KUBERNETES_VERSION#*.} ldflags='' package
    minor=${minor%%.*}
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        ldflags+=" -X $package.gitVersion=v$KUBERNETES_VERSION -X $package.gitMajor=1 -X $package.gitMinor=$minor"
        ldflags+=" -X $package.gitTreeState=clean"
    done
    (cd "$here/kubernetes" && bounded 300 go mod download) &&
        go_build kubernetes "$1/kubernetes" . "$ldflags" &&
        for program in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
            ln -s kubernetes "$1/$program" || return 1
        done
}

build_nodeadm() {
    local module=github.com/awslabs/amazon-eks-ami/nodeadm
    (cd "$here/nodeadm" && bounded 300 go mod download) &&
        go_build nodeadm "$1/nodeadm" $module/cmd/nodeadm '' &&
        go_build nodeadm "$1/nodeadm-internal" $module/cmd/nodeadm-internal ''
}

build_device_plugin_double() {
    (cd "$here/device-plugin-double" && bounded 300 go mod download) &&
        go_build device-plugin-double "$1/device-plugin-double" . ''
}

# The packages that this machine lacks, dependencies included, one `name=version` a line.
missing_packages() {
    # shellcheck disable=SC2086 # a list of names
    LC_ALL=C bounded 60 apt-get -s install --no-upgrade --no-install-recommends $DEBIAN_PACKAGES |
        sed -nE 's/^Inst ([^ ]+) (\[[^]]*\] )?\(([^ ]+) .*/\1=\3/p'
}

# Unpacked, not installed: an installed etcd or containerd would start itself on this machine.
build_debian() {
    local root=$1/root packages
    mkdir -p "$root" "$1/deb" && cd "$1/deb" || return 1
    if ! packages=$(missing_packages) || ! fetch_packages "$packages"; then
        [ "$(id -u)" -eq 0 ] || { echo "the package lists are stale or missing; as root: apt-get update"; return 1; }
        bounded 180 apt-get -qq update || return 1
        packages=$(missing_packages) && fetch_packages "$packages" || return 1
    fi
    local deb
    for deb in *.deb; do
        [ -e "$deb" ] || continue
        dpkg-deb -x "$deb" "$root" || return 1
    done
    merge_usr "$root" && cd / && rm -rf "$1/deb" && printf '%s\n' "$packages" >"$1/unpacked"
}

fetch_packages() {
    [ -n "$1" ] || return 0
    # shellcheck disable=SC2086 # a list of names
    bounded 300 apt-get -q download $1
}

# Packages that still ship /lib or /sbin would hide the host's links of these names when the folder becomes a node's layer.
merge_usr() {
    local name
    for name in bin sbin lib lib64; do
        [ -d "$1/$name" ] || continue
        mkdir -p "$1/usr/$name" && cp -a "$1/$name/." "$1/usr/$name/" && rm -rf "${1:?}/$name" || return 1
    done
}

build_awscli() {
    bounded 60 python3 -m venv "$1" &&
        bounded 300 "$1/bin/python" -m pip install --quiet --disable-pip-version-check "awscli==$AWSCLI_VERSION" &&
        bounded 60 "$1/bin/python" -m awscli --version &&
        # pip's own script names the folder that is moved in a moment.
        printf '#!/bin/sh\nexec %s/bin/python -m awscli "$@"\n' "$awscli_dir" >"$1/bin/aws"
}

build_pause() { bounded 60 gcc -Os -static -s -Wall -Wextra -Werror -o "$1/pause" "$here/pause/pause.c"; }

# Go's own files hold the versions that are built; this one is what people read. They must not part.
check_pins() {
    local pin
    for pin in "kubernetes/go.mod k8s.io/kubernetes v$KUBERNETES_VERSION" "nodeadm/go.mod amazon-eks-ami/nodeadm $NODEADM_VERSION"; do
        # shellcheck disable=SC2086 # three words
        set -- $pin
        grep -q "$2 $3" "$here/$1" || { say "$1 does not require $2 $3, which versions.env pins"; exit 1; }
    done
}

# entry PART VERSION PATH DIR: one line of parts.json. A part is ready when its path exists.
entry() {
    local part=$1 version=$2 path=$3 source=$4
    if [ -n "$path" ] && [ -e "$path" ]; then
        printf '  "%s": {"version": "%s", "path": "%s", "state": "ready"}' "$part" "$version" "$path"
    else
        local why=${skipped[$source]:-not found}
        why=${why//\\/}
        printf '  "%s": {"version": "%s", "path": "", "state": "skipped", "why": "%s"}' "$part" "$version" "${why//\"/}"
    fi
}

# debian_entry PACKAGE PROGRAM: from the unpacked tree, else from this machine.
debian_entry() {
    local package=$1 program=$2 version path
    path=$debian_dir/root$program
    version=$(sed -n "s/^$package=//p" "$debian_dir/unpacked" 2>/dev/null || true)
    if [ ! -e "$path" ]; then
        path=$program
        version=$(dpkg-query -W -f '${Version}' "$package" 2>/dev/null || true)
    fi
    entry "$package" "$version" "$path" debian
}

write_parts() {
    local comma=$',\n'
    {
        printf '{\n'
        entry kubernetes "$KUBERNETES_VERSION" "$kubernetes_dir/kubernetes" kubernetes; printf '%s' "$comma"
        entry nodeadm "$NODEADM_VERSION" "$nodeadm_dir/nodeadm" nodeadm; printf '%s' "$comma"
        entry nodeadm-internal "$NODEADM_VERSION" "$nodeadm_dir/nodeadm-internal" nodeadm; printf '%s' "$comma"
        entry device-plugin-double 1 "$plugin_dir/device-plugin-double" device-plugin-double; printf '%s' "$comma"
        entry awscli "$AWSCLI_VERSION" "$awscli_dir/bin/aws" awscli; printf '%s' "$comma"
        entry pause "1" "$pause_dir/pause" pause; printf '%s' "$comma"
        entry debian "$debian_release" "$debian_dir/root" debian; printf '%s' "$comma"
        debian_entry etcd-server /usr/bin/etcd; printf '%s' "$comma"
        debian_entry containerd /usr/bin/containerd; printf '%s' "$comma"
        debian_entry runc /usr/sbin/runc; printf '%s' "$comma"
        debian_entry containernetworking-plugins /usr/lib/cni/bridge; printf '%s' "$comma"
        debian_entry dbus /usr/bin/dbus-daemon; printf '%s' "$comma"
        debian_entry systemd /usr/lib/systemd/systemd; printf '%s' "$comma"
        debian_entry iproute2 /usr/bin/ip; printf '%s' "$comma"
        debian_entry nftables /usr/sbin/nft; printf '%s' "$comma"
        debian_entry iptables /usr/sbin/xtables-legacy-multi; printf '%s' "$comma"
        debian_entry conntrack /usr/sbin/conntrack; printf '%s' "$comma"
        debian_entry busybox-static /usr/bin/busybox; printf '\n}\n'
    } >"$set_dir/parts.json.new"
    mv "$set_dir/parts.json.new" "$set_dir/parts.json"
}

check_pins
mkdir -p "$set_dir"
take_lock

if command -v gcc >/dev/null; then make_part "$pause_dir" pause build_pause; else skip pause "gcc is missing"; fi
if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
    make_part "$debian_dir" debian build_debian
else
    skip debian "apt-get is missing: this is not Debian"
fi
# Its interpreter is a link to this machine's, which may have gone.
[ -e "$awscli_dir/bin/python" ] || rm -rf "$awscli_dir"
if command -v python3 >/dev/null; then make_part "$awscli_dir" awscli build_awscli; else skip awscli "python3 is missing"; fi
if command -v go >/dev/null; then
    make_part "$plugin_dir" device-plugin-double build_device_plugin_double
    make_part "$nodeadm_dir" nodeadm build_nodeadm
    make_part "$kubernetes_dir" kubernetes build_kubernetes
else
    skip device-plugin-double "go is missing"
    skip nodeadm "go is missing"
    skip kubernetes "go is missing"
fi
write_parts
[ "$(id -u)" -eq 0 ] || say "not root: machine nodes will be skipped (process nodes are used)"
if grep -q '"skipped"' "$set_dir/parts.json"; then
    say "the lab will use its stand-ins for what is missing, and make e2e skips itself without these:"
    sed -nE 's/^  "([^"]*)": .*"state": "skipped", "why": "(.*)"\}.*/    \1: \2/p' "$set_dir/parts.json" >&2
fi
say "parts are in $set_dir/parts.json"
