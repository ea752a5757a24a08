#!/usr/bin/env bash
# Takes away what belongs to this machine alone. Nobody can log in afterwards, and nothing is written to the disk any more but
# what the shutdown writes. Again does nothing.
set -euo pipefail
shopt -s nullglob dotglob

# wipe PATH...: removes it with all below it, unless something is mounted there: that is no part of the image.
wipe() {
    local path
    for path in "$@"; do
        path=${path%/}
        if awk -v path="$path/" 'index($5 "/", path) == 1 { found = 1 } END { exit !found }' /proc/self/mountinfo; then
            echo "cleanup.sh: $path stays: something is mounted there"
        else
            rm -rf "$path"
        fi
    done
}

# The rest of this boot's journal stays in memory, and so do the lines of those who still want to write a log.
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' >/run/systemd/journald.conf.d/90-image-build.conf
systemctl restart systemd-journald.service
for unit in rsyslog.service amazon-ssm-agent.service auditd.service; do
    # auditd refuses to be stopped by hand; its log is emptied below all the same.
    if systemctl is-active --quiet "$unit"; then systemctl stop "$unit" || true; fi
done
# Writes its seed when it is stopped, which would otherwise be at shutdown: two instances must not begin with one seed.
if systemctl is-active --quiet systemd-random-seed.service; then systemctl stop systemd-random-seed.service; fi
# Writes into wtmp when it is stopped: emptied below.
if systemctl is-active --quiet systemd-update-utmp.service; then systemctl stop systemd-update-utmp.service; fi

if command -v dnf >/dev/null; then dnf --quiet clean all; fi
wipe /var/cache/dnf /var/cache/yum /var/lib/apt/lists/*

# Who this machine was: EC2, systemd and cloud-init give the next one its own.
: >/etc/machine-id
[ ! -f /var/lib/dbus/machine-id ] || [ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
rm -f /etc/hostname /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
wipe /var/lib/cloud/* /run/cloud-init/result.json
wipe /var/lib/dhcp/* /var/lib/dhclient/* /run/systemd/netif/leases/*

# Who was here.
wipe /root/.ssh /root/.bash_history /root/.aws /root/.cache /root/.lesshst /root/.viminfo
for home in /home/*/; do
    wipe "$home".ssh "$home".bash_history "$home".aws "$home".cache "$home".lesshst "$home".viminfo "$home".ansible
done

# What a boot without user data has left: nodeadm, the agent and the container runtime write theirs at each node's own first boot.
wipe /etc/rollcall /var/lib/rollcall /var/lib/rollcall-watch /var/lib/private/rollcall-watch
wipe /var/lib/kubelet/* /etc/kubernetes/pki /etc/eks/kubelet/environment /run/eks/nodeadm
rm -f /etc/cni/net.d/* /etc/eks/nodeadm.d/*rollcall.json

find /var/log -xdev -type f -delete
wipe /var/log/journal/* /var/log/amazon/* /var/log/pods/* /var/log/containers/*
wipe /var/lib/systemd/coredump/* /var/crash/*
wipe /var/tmp/systemd-private-*/tmp/*
for kept in /var/tmp/*; do
    case ${kept##*/} in systemd-private-*) ;; *) wipe "$kept" ;; esac
done
# login writes to these where they are, and does not make them.
for log in wtmp btmp lastlog; do
    install -m 0664 -o root -g utmp /dev/null "/var/log/$log" 2>/dev/null || install -m 0664 /dev/null "/var/log/$log"
done
chmod 0660 /var/log/btmp
echo "cleaned"
