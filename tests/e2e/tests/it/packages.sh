#!/usr/bin/env bash
# Installs, upgrades and purges the debs of a directory on this machine's files with a layer over them,
# in a mount namespace of its own. Run by packages.rs.
set -euo pipefail
debs=$(realpath "$1")

mount --make-rprivate /
layers=$(mktemp -d)
mount -t tmpfs none "$layers"
mkdir "$layers"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$layers/upper,workdir=$layers/work" "$layers/root"
root=$layers/root
# No systemd runs here, as while an image is made in a chroot.
mount -t tmpfs none "$root/run"
mount -t tmpfs none "$root/tmp"
cp "$debs"/*.deb "$root/tmp/"

# The stock image's own unit, enabled as it is shipped.
wants=/etc/systemd/system/multi-user.target.wants
mkdir -p "$root$wants"
printf '[Service]\nType=oneshot\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' \
    >"$root/etc/systemd/system/nodeadm-run.service"
ln -s /etc/systemd/system/nodeadm-run.service "$root$wants/nodeadm-run.service"

# Everything that is not as before, but dpkg's own book-keeping: a directory that is only written again
# is as before.
changed() {
    (cd "$layers/upper" && find . ! -path './var/lib/dpkg/*' ! -path './var/log/*' \
        ! -path './var/cache/*' ! -path './dev/*' | sort) | while read -r path; do
        if [ -L "$layers/upper/$path" ] || [ ! -d "$layers/upper/$path" ] || [ ! -d "/$path" ]; then echo "$path"; fi
    done
}
is_enabled() { [ -L "$root$wants/$1" ] || [ -L "$root/etc/systemd/system/rollcall-agent.service.wants/$1" ]; }
in_root() { chroot "$root" "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

before=$(changed)
in_root dpkg --install "/tmp/$(cd "$debs" && ls rollcall-agent_0.9.0_*.deb)"
for unit in rollcall-join.service rollcall-agent.service rollcall-gpu-reset.path; do
    is_enabled "$unit" || fail "$unit is not enabled"
done
is_enabled nodeadm-run.service && fail 'nodeadm-run would start kubelet past the join'
[ "$(readlink "$root/etc/systemd/system/nodeadm-run.service" || :)" != /dev/null ] || fail 'nodeadm-run is masked'
# The image check misses an EKS image here, and nothing of ours.
found=$(in_root rollcall-agent check-image -o json || :)
for wrong in FileMissing WrongMode WrongOwner NodeadmRunEnabled GateMissing; do
    case $found in *"$wrong"*) fail "$found" ;; esac
done
case $found in *ProgramMissing*) ;; *) fail "check-image finds nothing on this machine: $found" ;; esac

# What somebody has disabled stays so.
rm "$root$wants/rollcall-agent.service"
mkdir -p "$root/var/lib/rollcall" "$root/etc/rollcall"
echo kept >"$root/var/lib/rollcall/journal.json"
in_root dpkg --install "/tmp/$(cd "$debs" && ls rollcall-agent_0.10.0_*.deb)"
in_root dpkg --status rollcall-agent | grep -q '^Version: 0.10.0$' || fail 'not upgraded'
is_enabled rollcall-agent.service && fail 'the upgrade has enabled what was disabled'
[ -s "$root/var/lib/rollcall/journal.json" ] || fail 'the upgrade has lost the journal'

in_root dpkg --purge rollcall-agent
is_enabled nodeadm-run.service || fail 'the node would not boot the stock way again'
diff <(echo "$before") <(changed) || fail 'the package has left something, or taken what was not its own'
