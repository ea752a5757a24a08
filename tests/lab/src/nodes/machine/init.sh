#!/bin/sh
# The first process of a machine node's namespaces: builds its root and becomes systemd. init.sh NODE_DIRECTORY CONSOLE, with
# `layers` (overlayfs layers of /usr, uppermost first), `binds` (read-only folders of the host), `hostname` and `boot_id` beside
# this script.
set -eu
node=$1 console=$2
machine=$node/machine
root=$machine/root
mount --make-rprivate /

mount -t tmpfs -o mode=755 tmpfs "$root"
for dir in usr etc var run tmp dev proc sys opt root home mnt srv .host; do mkdir -p "$root/$dir"; done
for link in bin sbin lib lib64; do [ -L "/$link" ] && ln -s "usr/$link" "$root/$link"; done
# Not the host's whole root: overlayfs takes no layers that lie in one another, and a node has no business in /root or /home.
mount -t overlay overlay -o "lowerdir=$(cat "$machine/layers"),upperdir=$machine/upper,workdir=$machine/work" "$root/usr"
mount --bind "$machine/etc" "$root/etc"
mount --bind "$machine/var" "$root/var"
mount --bind "$machine/home" "$root/home"
mount --bind "$machine/opt" "$root/opt"
mount --bind "$machine/superuser" "$root/root"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"

mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
for device in null zero full random urandom tty kmsg; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
: >"$root/dev/console"
mount --bind "$console" "$root/dev/console"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"

mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
for hierarchy in /sys/fs/cgroup/*/; do
    [ -L "${hierarchy%/}" ] && continue
    name=$(basename "$hierarchy")
    case $name in
    systemd) type=cgroup options=none,name=systemd ;;
    unified) type=cgroup2 options=rw ;;
    *) type=cgroup options=$name ;;
    esac
    mkdir "$root/sys/fs/cgroup/$name"
    mount -t "$type" -o "$options" cgroup "$root/sys/fs/cgroup/$name"
done

while read -r folder; do
    mkdir -p "$root$folder"
    mount --bind -o ro "$folder" "$root$folder"
done <"$machine/binds"

# The kernel has one boot id for all machines; sandboxed units take their own from the second place.
mkdir -p "$root/run/rollcall-lab"
cp "$machine/boot_id" "$root/run/rollcall-lab/boot_id"
mount --bind "$root/run/rollcall-lab/boot_id" "$root/proc/sys/kernel/random/boot_id"

# The simulated GPUs: folders of the node's directory over the kernel's own, so that a fault shows at once.
simulated=$node/root
mkdir -p "$root/run/rollcall-lab/simulated" "$root/var/lib/nvml-sim"
mount --bind "$simulated" "$root/run/rollcall-lab/simulated"
if [ -d "$simulated/var/lib/nvml-sim" ]; then
    # The second place is for the device plugin's pod, which has this folder of kubelet's and nothing else of the node.
    plugins=$root/var/lib/kubelet/device-plugins/.nvml-sim
    mkdir -p "$plugins"
    for place in "$root/var/lib/nvml-sim" "$plugins"; do mount --bind "$simulated/var/lib/nvml-sim" "$place"; done
    mkdir -p "$simulated/proc/driver" "$simulated/sys/module" "$simulated/sys/bus/pci/devices"
    mount --bind "$simulated/proc/driver" "$root/proc/driver"
    mount --bind "$simulated/sys/module" "$root/sys/module"
    mount --bind "$simulated/sys/bus/pci/devices" "$root/sys/bus/pci/devices"
    for index in 0 1 2 3 4 5 6 7; do ln -s "/run/rollcall-lab/simulated/dev/nvidia$index" "$root/dev/nvidia$index"; done
    ln -s /run/rollcall-lab/simulated/dev/nvidiactl /run/rollcall-lab/simulated/dev/nvidia-uvm "$root/dev/"
    mkdir -p "$root/usr/lib64"
    for library in libnvidia-ml.so.1 libcuda.so.1; do
        ln -sf "/run/rollcall-lab/simulated/usr/lib64/$library" "$root/usr/lib64/$library"
    done
fi

hostname "$(cat "$machine/hostname")"
cd "$root"
pivot_root . .host
umount -l /.host
rmdir /.host
# Kubelet's mounts must reach its containers.
mount --make-rshared /
exec env -i container=rollcall-lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \
    /usr/lib/systemd/systemd </dev/console >/dev/console 2>&1
