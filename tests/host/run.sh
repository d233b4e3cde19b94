#!/usr/bin/env bash
# run.sh [--uml | --uml-systemd | --nspawn | --qemu] [--keep] [JOB …]
# Boot a Debian 12 system with this tree's guardhouse on it, run jobs (tests/host/jobs) on it, return their exit status.
#
#   --uml          user-mode Linux 6.1, a tiny init: true cgroup v2 controllers, no Landlock, nobody delegates
#   --uml-systemd  the same with systemd as pid 1: delegation to services and to a user's own manager
#   --nspawn       a container of systemd's on this host's kernel: the unit files, credentials, a hub and a runner
#   --qemu         Debian's own 6.1 kernel, emulated: Landlock ABI 2 and cgroup v2 together; slow
#
# Without a mode the first three, one after the other. Needs root and the packages mmdebstrap, user-mode-linux, gcc,
# systemd-container (qemu-system-x86, seabios, e2fsprogs for the last); what is missing is named. TIMEOUT_S (900) bounds
# each boot. --keep leaves the root behind. The plain Debian root is kept in GUARDHOUSE_HOST_CACHE (~/.cache/guardhouse-host).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
modes=() jobs=() keep=
for word in "$@"; do
  case $word in
    --uml | --uml-systemd | --nspawn | --qemu) modes+=("${word#--}") ;;
    --keep) keep=1 ;;
    -*) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) jobs+=("$word") ;;
  esac
done
[ "$(id -u)" = 0 ] || { echo "run.sh: run as root: a root file system with its owners is unpacked" >&2; exit 125; }
[ ${#modes[@]} -gt 0 ] || modes=(uml uml-systemd nspawn)

run_one() { # run_one MODE: boot it with its jobs
  local mode=$1 work status=0 own=("${jobs[@]}")
  if [ ${#own[@]} = 0 ]; then
    case $mode in
      uml) own=(doctor profiles landlock_absent cgroup_v2 cgroup_none) ;;
      uml-systemd) own=(doctor delegation) ;;
      nspawn) own=(doctor units services) ;;
      qemu) own=(doctor profiles delegation) ;;
    esac
  fi
  work=$(mktemp -d /var/tmp/guardhouse-host.XXXXXX)
  "$here/make_root.sh" "$work/root" || { rm -rf "$work"; return 125; }
  mkdir "$work/share"
  cp "$here"/jobs/*.py "$here"/../../packaging/systemd/*.conf "$work/share/"
  {
    echo '#!/bin/sh'
    echo "export HOST_MODE=$mode status=0"
    for job in "${own[@]}"; do
      echo "echo '== $mode: $job'; /opt/guardhouse/bin/python /share/$job.py || status=1"
    done
    echo 'exit $status'
  } >"$work/share/jobs.sh"
  chmod -R a+rX "$work/share"
  chmod 755 "$work" "$work/share/jobs.sh"
  case $mode in
    uml) "$here/boot_uml.sh" "$work/root" "$work/share" jobs.sh "${TIMEOUT_S:-900}" || status=$? ;;
    uml-systemd) "$here/boot_uml.sh" --systemd "$work/root" "$work/share" jobs.sh "${TIMEOUT_S:-900}" || status=$? ;;
    nspawn) "$here/boot_nspawn.sh" "$work/root" "$work/share" jobs.sh "${TIMEOUT_S:-900}" || status=$? ;;
    qemu) "$here/boot_qemu.sh" "$work/root" "$work/share" jobs.sh "${TIMEOUT_S:-900}" || status=$? ;;
  esac
  if [ -n "$keep" ]; then echo "run.sh: kept $work"; else rm -rf --one-file-system "$work"; fi
  echo "== $mode: exit status $status"
  return "$status"
}

worst=0
for mode in "${modes[@]}"; do run_one "$mode" || worst=1; done
exit "$worst"
