#!/usr/bin/env bash
# Gets what a virtual machine of the lab is made of into a cache outside the tree: QEMU and a kernel from Debian, and the base of
# a disk, unpacked from Debian's packages and not installed. Idempotent; changes nothing on this machine and starts nothing.
#
#   setup.sh          get what is missing, print the folder: qemu/, base/, versions
#   setup.sh --where  print the folder, whether or not it is filled
#
# What cannot be had here (no apt-get, no network, not Debian) is named, with exit code 3.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
base=${XDG_CACHE_HOME:-${HOME:?needed for the cache, or XDG_CACHE_HOME}/.cache}/rollcall-lab
# qemu: the emulator for x86-64 with its firmware, and the kernel that clouds boot, whose virtio drivers are modules.
QEMU_PACKAGES="qemu-system-x86 linux-image-cloud-amd64 busybox-static"
# base: what AL2023 has as well, and perl-base, which the sandbox's probe is written in.
BASE_PACKAGES="systemd systemd-sysv dbus bash coreutils util-linux mount iproute2 kmod procps grep sed gawk tar gzip login
    passwd base-files base-passwd libc-bin ca-certificates perl-base libnss-myhostname"

# shellcheck disable=SC1091 # of this machine
. /etc/os-release 2>/dev/null || true
dir=$base/vm-${VERSION_CODENAME:-unknown}-$(sha256sum "$here/setup.sh" | head -c 10)
echo "$dir"
[ "${1:-}" = --where ] && exit 0

skip() {
    echo "vm-setup: skipped: $*" >&2
    exit 3
}
[ -e "$dir/versions" ] && exit 0
[ "$(uname -m)" = x86_64 ] || skip "this machine is $(uname -m), the disk is made for x86-64"
for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || skip "no $tool: the parts are Debian's packages"
done
command -v mke2fs >/dev/null || skip "no mke2fs (Debian: e2fsprogs)"
mkdir -p "$base"
exec 9>"$base/vm.lock"
flock -w 600 9 || skip "another set-up holds $base/vm.lock"
[ -e "$dir/versions" ] && exit 0

work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT

# With its dependencies, one `name=version` a line: of what is not installed here, or of all.
closure() {
    # shellcheck disable=SC2086 # a list of names
    LC_ALL=C timeout 60 apt-get -s "${@:2}" install --no-upgrade --no-install-recommends $1 |
        sed -nE 's/^Inst ([^ ]+) (\[[^]]*\] )?\(([^ ]+) .*/\1=\3/p'
}
fetch() {
    local into=$1 packages=$2 deb
    mkdir -p "$work/deb" "$work/$into"
    # shellcheck disable=SC2086 # a list of names
    (cd "$work/deb" && timeout 300 apt-get -q download $packages) >/dev/null 2>"$work/why" || return 1
    for deb in "$work"/deb/*.deb; do
        dpkg-deb -x "$deb" "$work/$into"
    done
    rm -rf "$work/deb"
    printf '%s\n' "$packages" | sed "s/^/$into /" >>"$work/versions"
}
get() {
    # Everything, installed here or not: what the machine has is in no package file.
    local packages
    packages=$(closure "$2" -o Dir::State::status=/dev/null) && [ -n "$packages" ] && fetch "$1" "$packages"
}
say_why() { tail -n 1 "$work/why" 2>/dev/null || echo "the packages cannot be resolved"; }
if ! get qemu "$QEMU_PACKAGES"; then
    [ "$(id -u)" -eq 0 ] || skip "the package lists are stale or missing; as root: apt-get update"
    timeout 180 apt-get -qq update || skip "apt-get update failed"
    rm -rf "$work/qemu"
    get qemu "$QEMU_PACKAGES" || skip "$(say_why)"
fi
get base "$BASE_PACKAGES" || skip "$(say_why)"

# Packages that still ship /bin or /lib, and what their scripts would have done.
for tree in qemu base; do
    for name in bin sbin lib lib64; do
        if [ -d "$work/$tree/$name" ] && ! [ -L "$work/$tree/$name" ]; then
            mkdir -p "$work/$tree/usr/$name"
            cp -a "$work/$tree/$name/." "$work/$tree/usr/$name/"
            rm -rf "${work:?}/$tree/$name"
            ln -s "usr/$name" "$work/$tree/$name"
        fi
    done
done
root=$work/base
rm -rf "$root"/usr/share/{doc,man,locale,info,i18n,bash-completion,lintian,zoneinfo} "$root/var/cache" "$root/usr/lib/udev/hwdb.d"
cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
# As on AL2023.
ln -s bash "$root/usr/bin/sh"
ln -s gawk "$root/usr/bin/awk"
# dbus has its own user, as its package's script would make it.
echo 'messagebus:x:999:999::/nonexistent:/usr/sbin/nologin' >>"$root/etc/passwd"
echo 'messagebus:x:999:' >>"$root/etc/group"
(cd "$root/usr/share/ca-certificates" && find . -name '*.crt' -print0 | sort -z | xargs -0 cat) >"$root/etc/ssl/certs/ca-certificates.crt" 2>/dev/null || true
ldconfig -r "$root"
ls "$work"/qemu/boot/vmlinuz-* >/dev/null 2>&1 || skip "the kernel's package has no kernel"

rm -f "$work/why"
chmod 755 "$work"
rm -rf "$dir"
mv -T "$work" "$dir"
trap - EXIT
echo "vm-setup: got $(wc -l <"$dir/versions") packages in $SECONDS s" >&2
