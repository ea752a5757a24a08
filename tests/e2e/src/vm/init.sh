#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the virtual machine: finds its disk, lays the simulated GPUs over the kernel's own files, and becomes
# systemd. What lies in /mod was put there in the order in which it is loaded.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
while read -r module; do $b insmod "/mod/$module.ko"; done </mod/order
tries=0
while ! [ -b /dev/vda ] && [ $tries -lt 600 ]; do
    $b usleep 100000
    tries=$((tries + 1))
done
$b mount -t ext4 /dev/vda /root || { echo "vm: no disk" >/dev/console; $b poweroff -f; }
simulated=/root/var/lib/rollcall-vm/simulated
for place in proc/driver sys/module sys/bus/pci/devices; do
    [ -d "$simulated/$place" ] && $b mount --bind "$simulated/$place" "/$place"
done
# Any number of the driver's: one that the unit is not given by name.
for number in 0 7; do $b mknod -m 666 "/dev/nvidia$number" c 195 "$number"; done
$b mknod -m 666 /dev/nvidiactl c 195 255
# Open to everybody, so that what keeps the units out is their sandbox.
$b chmod 666 /dev/vda /dev/ttyS1 /dev/kmsg
for place in dev proc sys; do $b mount --move "/$place" "/root/$place"; done
exec $b switch_root /root /usr/lib/systemd/systemd
