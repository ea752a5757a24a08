#!/usr/bin/env bash
# Says every file that must not be in an image, by its name or by what is in it, and fails when there is one. The agent's own
# check, which comes last, knows what would harm a node; this one looks for what would harm whoever built the image.
set -euo pipefail

found=0
say() {
    echo "scan.sh: $1: $2" >&2
    found=$((found + 1))
}

# What is mounted is no part of the image, and neither are the container runtime's layers, which nobody here made.
skipped=(-path /var/lib/containerd)
while read -r mounted; do
    case $mounted in
        / | /etc | /home | /opt | /root | /srv | /usr | /var) ;;
        *) skipped+=(-o -path "$mounted") ;;
    esac
done < <(awk '{ print $5 }' /proc/self/mountinfo)

# files PLACE... TEST...: what there is on the image's own disk, ended by NUL.
files() {
    local places=()
    while [[ ${1:-} == /* ]]; do
        places+=("$1")
        shift
    done
    find "${places[@]}" \( "${skipped[@]}" \) -prune -o "$@" -print0 2>/dev/null || true
}

# by_name WHY PLACE... TEST...: says each of these.
by_name() {
    local why=$1 path
    shift
    while IFS= read -r -d '' path; do say "$path" "$why"; done < <(files "$@")
}

by_name "every instance would have the same host key" /etc/ssh -name 'ssh_host_*key*'
by_name "whoever built the image could log in" /root /home -name 'authorized_keys*'
by_name "a private key" /root /home /etc /opt /var -type f \( -name id_rsa -o -name id_ed25519 -o -name id_ecdsa -o -name '*.ppk' \)
by_name "what somebody typed" /root /home -name '.*_history'
by_name "credentials" /root /home -type f \( -path '*/.aws/*' -o -path '*/.docker/config.json' -o -path '*/.kube/config' -o -name .netrc -o -name .git-credentials \)
by_name "the state of this machine's cloud-init" /var/lib/cloud -path "/var/lib/cloud/*"
by_name "a log of this machine" /var/log -type f -size +0
by_name "a journal of this machine" /var/log/journal -path "/var/log/journal/*"
by_name "memory of a process" /var/lib/systemd/coredump /var/crash -type f
by_name "the seed of this machine's random numbers" /var/lib/systemd/random-seed
by_name "it belongs into the user data" /etc/rollcall -type f
by_name "of another node's join" /var/lib/rollcall /var/lib/rollcall-watch /var/lib/private/rollcall-watch -type f
by_name "of another cluster" /var/lib/kubelet -type f
by_name "of another network" /etc/cni/net.d -type f
for swap in /swap*; do [ ! -f "$swap" ] || say "$swap" "swap holds memory of this machine"; done
by_name "left by the build" /tmp /var/tmp -name 'rollcall-agent*'

[ ! -s /etc/machine-id ] || say /etc/machine-id "every instance would have the same id"

# By content: keys and credentials, wherever a build may have put them. Certificates and public keys are no secrets.
while IFS= read -r path; do
    say "$path" "it holds a private key or a credential"
done < <(files /etc /root /home /opt /srv /var -type f -size -1024k | xargs -0 --no-run-if-empty grep -lIE \
    -e '-----BEGIN ([A-Z]+ )?PRIVATE KEY-----' -e '(^|[^A-Z0-9])(AKIA|ASIA)[A-Z0-9]{16}([^A-Z0-9]|$)' \
    -e 'aws_secret_access_key[[:space:]]*=' 2>/dev/null || true)

if [ "$found" -gt 0 ]; then
    echo "scan.sh: $found things that must not be in an image; provision/cleanup.sh is where they are removed" >&2
    exit 1
fi
echo "scanned: nothing that must not be in an image"
