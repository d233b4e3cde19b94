#!/usr/bin/env bash
# boot_qemu.sh ROOT SHARE SCRIPT [TIMEOUT_S]
# Boot Debian's own 6.1 kernel (Landlock ABI 2, AppArmor, cgroup v2, two processors) with systemd in an emulated machine,
# run SHARE/SCRIPT as root and return its exit status. No hypervisor is needed; Python runs about 30 times slower.
# The kernel is fetched by apt-get download, or given as a package file in $KERNEL_DEB. ROOT is copied, not changed.
set -euo pipefail
root=$(realpath "$1") share=$(realpath "$2") script=$3 limit=${4:-1800}
missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86 seabios)
command -v mke2fs >/dev/null || missing+=(e2fsprogs)
[ ${#missing[@]} = 0 ] || { echo "boot_qemu.sh: missing: apt-get install --no-install-recommends ${missing[*]}" >&2; exit 125; }
work=$(mktemp -d /var/tmp/guardhouse-qemu.XXXXXX)
trap 'rm -rf "$work"' EXIT
kernel=${KERNEL_DEB:-}
if [ -z "$kernel" ]; then
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-6[^ ]*\)/\1/p' | head -1)
  (cd "$work" && apt-get -q download "${package:-linux-image-cloud-amd64}" >/dev/null 2>&1) || {
    echo "boot_qemu.sh: apt-get cannot download a Debian cloud kernel; give one in KERNEL_DEB" >&2; exit 125; }
  kernel=$(echo "$work"/*.deb)
fi
dpkg-deb -x "$kernel" "$work/kernel"
cp -a "$root" "$work/root"
cp -a "$work/kernel/lib/modules" "$work/root/usr/lib/"
version=$(ls "$work/kernel/lib/modules")
chroot "$work/root" depmod "$version" || true
mkdir -p "$work/root/share" "$work/root/etc/systemd/system/multi-user.target.wants"
cat >"$work/root/etc/systemd/system/host-job.service" <<UNIT
[Unit]
After=basic.target dbus.service systemd-logind.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'mount /dev/nvme1n1 /share; echo HOST-JOB-UP=\$\$(cut -d" " -f1 /proc/uptime); cd /share; ./$script; echo HOST-JOB-RC=\$\$?'
ExecStopPost=/bin/systemctl poweroff -ff
TimeoutStartSec=infinity
StandardOutput=tty
TTYPath=/dev/console
StandardError=inherit
UNIT
ln -sf /etc/systemd/system/host-job.service "$work/root/etc/systemd/system/multi-user.target.wants/"
size=$(($(du -sm "$work/root" | cut -f1) * 13 / 10 + 300))M
mke2fs -q -F -t ext4 -d "$work/root" "$work/root.img" "$size"
rm -rf "$work/root"
mke2fs -q -F -t ext4 -d "$share" "$work/share.img" 64M
# The cloud kernel has NVMe and ext4 built in: no initramfs.
timeout -k 5 "$limit" qemu-system-x86_64 -M q35 -accel tcg,thread=multi,tb-size=512 -cpu max -smp 2 -m 1024 \
  -nographic -no-reboot -nodefaults -serial stdio -kernel "$work"/kernel/boot/vmlinuz-* \
  -append "root=/dev/nvme0n1 rw console=ttyS0 quiet systemd.show_status=false mitigations=off nokaslr" \
  -drive if=none,id=d0,file="$work/root.img",format=raw -device nvme,drive=d0,serial=r0 \
  -drive if=none,id=d1,file="$work/share.img",format=raw -device nvme,drive=d1,serial=s0 \
  </dev/null 2>&1 | sed -u 's|\r$||' | tee "$work/log" || true
status=$(sed -n 's/.*HOST-JOB-RC=\([0-9]*\).*/\1/p' "$work/log" | tail -1)
exit "${status:-125}"
