#!/bin/bash
# boot.sh ROOT: run systemd as process 1 of a root, until this process ends.
#
# Nothing of the root is changed: what is written goes into memory. There is no network but the
# root's own loopback. The process number of systemd here is that of this process's only child.
set -euo pipefail
# shellcheck disable=SC2016 # the inner shell replaces these.
exec unshare --mount --pid --fork --uts --ipc --net --cgroup --kill-child --propagation private \
    bash -c '
    set -euo pipefail
    mkdir -p /run/asynchost-boot
    mount -t tmpfs tmpfs /run/asynchost-boot
    cd /run/asynchost-boot
    mkdir upper work merged
    mount -t overlay overlay -o "lowerdir=$1,upperdir=$PWD/upper,workdir=$PWD/work" merged
    cd merged
    mkdir -p outside
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs dev
    for name in null zero full random urandom tty; do
        touch "dev/$name"
        mount --bind "/dev/$name" "dev/$name"
    done
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    pivot_root . outside
    umount -l /outside
    hostname guest
    ip link set lo up 2>/dev/null || true
    exec env -i container=asynchost PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --show-status=0
    ' sh "$1"
