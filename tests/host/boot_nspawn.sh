#!/usr/bin/env bash
# boot_nspawn.sh ROOT SHARE SCRIPT [TIMEOUT_S]
# Boot systemd in ROOT as a container on this host's kernel (about 1 s), run SHARE/SCRIPT in it as root, power it off and
# return the script's exit status. Units, hardening directives and credentials are real, and so is the host's Landlock;
# where the host binds controllers to cgroup v1, cgroup v2 limits in the container are accepted and not enforced.
set -euo pipefail
root=$(realpath "$1") share=$(realpath "$2") script=$3 limit=${4:-600}
for tool in systemd-nspawn:systemd-container script:bsdutils nsenter:util-linux; do
  command -v "${tool%%:*}" >/dev/null || { echo "boot_nspawn.sh: missing: apt-get install --no-install-recommends ${tool##*:}" >&2; exit 125; }
done
[ "$(id -u)" = 0 ] || { echo "boot_nspawn.sh: run as root; a container of systemd's cannot be booted otherwise" >&2; exit 125; }
name=guardhouse-host.$$
log=$(mktemp)
hierarchies=()
for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
  if [ -e "$tree/cgroup.procs" ]; then mkdir "$tree/$name" && hierarchies+=("$tree/$name"); fi
done
(
  for group in "${hierarchies[@]}"; do echo "$BASHPID" >"$group/cgroup.procs"; done
  export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
  exec script -qec "systemd-nspawn -q -D '$root' --register=no --keep-unit --private-network --capability=all \
    --system-call-filter='@mount @keyring landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp bpf' --bind='$share':/share --console=interactive --boot" "$log" \
    </dev/null >/dev/null 2>&1
) &
supervisor=$!
first=
began=$(date +%s.%N)
for _ in $(seq 300); do
  for group in "${hierarchies[@]}"; do
    first=$(head -1 "$group/payload/init.scope/cgroup.procs" 2>/dev/null || true)
    [ -n "$first" ] && break
  done
  if [ -n "$first" ]; then
    case $(nsenter -t "$first" -a systemctl is-system-running 2>/dev/null) in running | degraded) break ;; esac
  fi
  sleep 0.1
done
if [ -z "$first" ]; then
  echo "boot_nspawn.sh: the container did not boot; its console said:" >&2
  tail -20 "$log" >&2
  kill "$supervisor" || true
  exit 125
fi
echo "HOST-JOB-UP=$(echo "$(date +%s.%N) $began" | awk '{printf "%.1f", $1-$2}')"
status=0
timeout -k 5 "$limit" nsenter -t "$first" -a -- systemd-run -q --wait --pipe --working-directory=/share -- "/share/$script" ||
  status=$?
nsenter -t "$first" -a systemctl poweroff || true
wait "$supervisor" || true
for group in "${hierarchies[@]}"; do find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true; done
rm -f "$log"
exit "$status"
