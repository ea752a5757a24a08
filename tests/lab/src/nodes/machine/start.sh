#!/bin/sh
# Starts one machine node: start.sh NODE_DIRECTORY NAME CONSOLE. Enters a cgroup of its own in every hierarchy, so that the
# machine's cgroup namespace begins there, then its network namespace, then new namespaces for everything else.
set -eu
node=$1 name=$2 console=$3
for hierarchy in /sys/fs/cgroup/*/; do
    hierarchy=${hierarchy%/}
    [ -L "$hierarchy" ] && continue
    [ -e "$hierarchy/cgroup.procs" ] || continue
    own=$hierarchy/rollcall-lab/$name
    mkdir -p "$own"
    # cpuset's groups are born without processors, and take nobody in until they have some.
    if [ -e "$hierarchy/cpuset.cpus" ]; then
        for group in "$hierarchy/rollcall-lab" "$own"; do
            cat "$hierarchy/cpuset.cpus" >"$group/cpuset.cpus"
            cat "$hierarchy/cpuset.mems" >"$group/cpuset.mems"
        done
    fi
    echo $$ >"$own/cgroup.procs"
done
# A machine's clocks begin with its boot: the host's would say that it has been up for long.
up=$(cut -d. -f1 /proc/uptime)
exec nsenter --net="/run/netns/rollcall-$name" unshare --fork --kill-child --pid --mount --uts --ipc --cgroup \
    --time --monotonic "-$up" --boottime "-$up" "$node/machine/init.sh" "$node" "$console"
