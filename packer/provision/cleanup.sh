#!/usr/bin/env bash
# Takes away what belongs to this machine alone. Nobody can log in afterwards, and nothing is written to the disk any more but
# what the shutdown writes. Again does nothing.
set -euo pipefail
shopt -s nullglob dotglob

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

if command -v dnf >/dev/null; then dnf --quiet clean all; fi
rm -rf /var/cache/dnf /var/cache/yum /var/lib/apt/lists/*

# Who this machine was: EC2, systemd and cloud-init give the next one its own.
: >/etc/machine-id
[ ! -f /var/lib/dbus/machine-id ] || [ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
rm -f /etc/hostname /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
rm -rf /var/lib/cloud/* /run/cloud-init/result.json
rm -rf /var/lib/dhcp/* /var/lib/dhclient/* /run/systemd/netif/leases/*

# Who was here.
rm -rf /root/.ssh /root/.bash_history /root/.aws /root/.cache /root/.lesshst /root/.viminfo
for home in /home/*/; do
    rm -rf "$home".ssh "$home".bash_history "$home".aws "$home".cache "$home".lesshst "$home".viminfo "$home".ansible
done

# What a boot without user data has left: nodeadm, the agent and the container runtime write theirs at each node's own first boot.
rm -rf /etc/rollcall /var/lib/rollcall /var/lib/rollcall-watch /var/lib/private/rollcall-watch
rm -rf /var/lib/kubelet/* /etc/kubernetes/pki /etc/eks/kubelet/environment /run/eks/nodeadm
rm -f /etc/cni/net.d/* /etc/eks/nodeadm.d/*rollcall.json

find /var/log -type f -delete
rm -rf /var/log/journal/* /var/log/amazon/* /var/log/pods/* /var/log/containers/*
rm -rf /var/lib/systemd/coredump/* /var/crash/*
rm -rf /var/tmp/systemd-private-*/tmp/*
for kept in /var/tmp/*; do
    case ${kept##*/} in systemd-private-*) ;; *) rm -rf "$kept" ;; esac
done
# login writes to these where they are, and does not make them.
for log in wtmp btmp lastlog; do
    install -m 0664 -o root -g utmp /dev/null "/var/log/$log" 2>/dev/null || install -m 0664 /dev/null "/var/log/$log"
done
chmod 0660 /var/log/btmp
echo "cleaned"
