#!/bin/sh
# What the deb and the rpm do besides laying files: the body of their maintainer scripts. Nothing is started
# at the first installation: an image is being made, or the node's next boot proves it.
set -eu

ours='rollcall-join.service rollcall-agent.service rollcall-gpu-reset.path'

# Nothing to tell in a chroot or while an image is made without systemd.
reload() {
    if [ -d /run/systemd/system ]; then systemctl daemon-reload || :; fi
}

installed() {
    reload
    # shellcheck disable=SC2086 # several words
    systemctl preset $ours >/dev/null 2>&1 || :
    # Not one of ours, and there only on an EKS image.
    systemctl preset nodeadm-run.service >/dev/null 2>&1 || :
}

# The gates of this boot stay open: a node that is Ready keeps its pods.
upgraded() {
    reload
    if [ -d /run/systemd/system ]; then
        systemctl try-restart rollcall-agent.service rollcall-join.service || :
    fi
}

# The node boots the stock way from now on.
removing() {
    if [ -d /run/systemd/system ]; then
        # shellcheck disable=SC2086 # several words
        systemctl stop $ours || :
    fi
    # shellcheck disable=SC2086 # several words
    systemctl disable $ours >/dev/null 2>&1 || :
    systemctl enable nodeadm-run.service >/dev/null 2>&1 || :
    rm -f /etc/eks/nodeadm.d/99-rollcall.json
}

purged() {
    rm -rf /etc/rollcall /var/lib/rollcall /var/lib/rollcall-watch /var/lib/private/rollcall-watch \
        /run/rollcall /run/rollcall-watch /run/private/rollcall-watch /run/rollcall-gpu-reset \
        /run/rollcall-gate /run/rollcall-nodeadm
}
