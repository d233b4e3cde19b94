#!/usr/bin/env bash
# boot_uml.sh [--systemd] ROOT SHARE SCRIPT [TIMEOUT_S]
# Run SHARE/SCRIPT as root on user-mode Linux 6.1 (a real kernel in a process; cgroup v2 with cpu, io, memory, pids) and
# return its exit status. By default behind a ten-line init (about 3 s); --systemd boots systemd as pid 1 (about 10 s).
# ROOT is used in place (hostfs, read-write): give a copy that may be spoilt. SHARE is /share in the guest.
set -euo pipefail
mode=quick
[ "$1" = --systemd ] && { mode=systemd; shift; }
root=$(realpath "$1") share=$(realpath "$2") script=$3 limit=${4:-600}
here=$(cd "$(dirname "$0")" && pwd)
missing=()
command -v linux.uml >/dev/null || missing+=(user-mode-linux)
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
[ ${#missing[@]} = 0 ] || { echo "boot_uml.sh: missing: apt-get install --no-install-recommends ${missing[*]}" >&2; exit 125; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -O2 -shared -fPIC -o "$work/shim.so" "$here/uml_xsave_shim.c" -ldl

cat >"$root/usr/sbin/host-job" <<JOB
#!/bin/sh
mkdir -p /share; mount -t hostfs -o $share none /share
# hostfs gives what an ordinary account makes to root: it gets file systems that know owners.
for place in /tmp /var/tmp; do mountpoint -q \$place || mount -t tmpfs -o mode=1777 tmpfs \$place; done
mount -t tmpfs -o mode=0700,uid=1000,gid=1000 tmpfs /home/person
echo "HOST-JOB-UP=\$(cut -d' ' -f1 /proc/uptime)"
cd /share; sh -c "exec ./$script"; echo "HOST-JOB-RC=\$?"
JOB
cat >"$root/usr/sbin/host-init" <<'INIT'
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm
ln -sf /proc/self/fd /dev/fd
mount -t tmpfs -o mode=1777 tmpfs /tmp; mount -t tmpfs tmpfs /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
ip link set lo up 2>/dev/null
mkdir /sys/fs/cgroup/init; echo $$ > /sys/fs/cgroup/init/cgroup.procs
echo "+cpu +memory +pids +io" > /sys/fs/cgroup/cgroup.subtree_control
/usr/sbin/host-job
python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)'
INIT
chmod +x "$root/usr/sbin/host-job" "$root/usr/sbin/host-init"
units=$root/etc/systemd/system
mkdir -p "$units/multi-user.target.wants"
cat >"$units/host-job.service" <<'UNIT'
[Unit]
After=basic.target dbus.service systemd-logind.service
[Service]
Type=oneshot
ExecStart=/usr/sbin/host-job
ExecStopPost=/bin/systemctl poweroff -ff
TimeoutStartSec=infinity
StandardOutput=tty
TTYPath=/dev/console
StandardError=inherit
UNIT
ln -sf /etc/systemd/system/host-job.service "$units/multi-user.target.wants/"
init=/usr/sbin/host-init
[ $mode = systemd ] && init=/lib/systemd/systemd
LD_PRELOAD=$work/shim.so timeout -k 5 "$limit" linux.uml mem="${UML_MEMORY:-1G}" root=/dev/root rootfstype=hostfs \
  rootflags="$root" rw con=null con0=null,fd:1 ssl=null quiet security=none systemd.show_status=false \
  umid="guardhouse$$" init=$init </dev/null 2>/dev/null | sed -u 's|\r$||' | tee "$work/log" || true
status=$(sed -n 's/.*HOST-JOB-RC=\([0-9]*\).*/\1/p' "$work/log" | tail -1)
exit "${status:-125}"
