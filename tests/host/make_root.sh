#!/usr/bin/env bash
# make_root.sh DIRECTORY: a Debian 12 root file system with systemd, Debian's Python and this tree's guardhouse in
# /opt/guardhouse. About 35 s the first time; the plain Debian part is kept in $GUARDHOUSE_HOST_CACHE as one archive.
#
# Guardhouse goes in as it does on a real host: a virtual environment, the wheel of this tree, exactly the locked
# packages of requirements/runtime.txt (copied out of .venv file by file: no network), Debian's libseccomp binding.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
root=$1
cache=${GUARDHOUSE_HOST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/guardhouse-host}
packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3,python3-seccomp,util-linux,procps,iproute2,kmod,udev,bash,ca-certificates,openssl,polkitd,pkexec,cron

command -v mmdebstrap >/dev/null || { echo "make_root.sh: mmdebstrap is missing: apt-get install --no-install-recommends mmdebstrap" >&2; exit 125; }
python=$tree/.venv/bin/python
[ -x "$python" ] || { echo "make_root.sh: no $python; run 'make setup' first" >&2; exit 125; }
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
  echo "make_root.sh: .venv is no Python 3.11; its compiled packages do not load in Debian 12's interpreter" >&2; exit 125; }

archive=$cache/debian12-$(printf %s "$packages" | sha256sum | cut -c1-12).tar
if [ ! -s "$archive" ]; then
  mkdir -p "$cache"
  mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$archive.new.tar"
  mv "$archive.new.tar" "$archive"
fi
mkdir -p "$root"
tar -xpf "$archive" -C "$root"
ln -sf /dev/null "$root/etc/systemd/system/getty@tty1.service"
ln -sf /dev/null "$root/etc/systemd/system/console-getty.service"

chroot "$root" /usr/bin/python3 -m venv --without-pip /opt/guardhouse
site=$root/opt/guardhouse/lib/python3.11/site-packages
"$python" "$here/copy_locked.py" "$tree/requirements/runtime.txt" "$site"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$tree" && "$python" -m hatchling build -t wheel -d "$work" >/dev/null 2>&1) || {
  echo "make_root.sh: hatchling cannot build the wheel of $tree" >&2; exit 125; }
"$python" -m zipfile -e "$work"/*.whl "$site"
cat >"$root/opt/guardhouse/bin/guardhouse" <<'MAIN'
#!/opt/guardhouse/bin/python
from guardhouse.cli.main import main

main()
MAIN
chmod 755 "$root/opt/guardhouse/bin/guardhouse"
ln -sf /opt/guardhouse/bin/guardhouse "$root/usr/local/bin/guardhouse"
cp "$tree/packaging/install_seccomp.py" "$root/tmp/"
chroot "$root" /opt/guardhouse/bin/python /tmp/install_seccomp.py >/dev/null
chroot "$root" /opt/guardhouse/bin/python -m compileall -q /opt/guardhouse/lib >/dev/null || true
printf '127.0.0.1 localhost\n::1 localhost\n' >"$root/etc/hosts"
# Two accounts: the service's, and a person's with a user manager.
chroot "$root" useradd --system --home-dir /var/lib/guardhouse --shell /usr/sbin/nologin guardhouse
chroot "$root" useradd --create-home --shell /bin/bash --uid 1000 person
install -D -m 644 -t "$root/etc/systemd/system/" "$tree"/packaging/systemd/*.service
