#!/bin/bash
# The first process of a private libvirtd's namespaces: prepares the mounts, then starts a
# daemon whenever it is told to, and reaps what daemons leave behind (guests are reparented here).
#
#   namespace.sh WORK_FOLDER CAPABILITIES_FOLDER LIBVIRTD [ARGUMENT...]
#
# Reads commands from standard input, one a line, and answers each with one line. The end of
# standard input ends this process, and with it, as it is process 1 of its namespace, every
# daemon and guest: nothing can outlive the process that holds the other end of the pipe.
set -euo pipefail

work=$1 capabilities=$2
shift 2

# Whole parent folders, so that no folder has to be made on the machine itself.
for folder in /run /var/lib /var/cache /var/log; do
    mount -t tmpfs -o mode=0755 none "$folder"
done
mkdir -p /run/lock /run/libvirt /var/lib/libvirt /var/cache/libvirt/qemu/capabilities
mount --bind "$capabilities" /var/cache/libvirt/qemu/capabilities
mount --bind "$work/etc" /etc/libvirt
mount --bind "$work/passwd" /etc/passwd
mount --bind "$work/group" /etc/group
# libvirt's LXC driver takes a hybrid cgroup tree for a pure version 2 one if it sees this.
if mountpoint -q /sys/fs/cgroup/unified; then
    umount /sys/fs/cgroup/unified 2>/dev/null || true
fi
if [[ -n ${NEW_HOSTNAME:-} ]]; then
    echo "$NEW_HOSTNAME" >/proc/sys/kernel/hostname
fi
echo ready

while read -r command; do
    case $command in
    start)
        "$@" </dev/null >>"$work/libvirtd.log" 2>&1 &
        echo "$!"
        ;;
    *)
        echo "unknown command: $command"
        ;;
    esac
done
