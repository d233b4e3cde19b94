#!/usr/bin/env bash
# setup.sh [runtime|dev]: make .venv with every locked, hash-checked dependency and libseccomp's binding.
#
# As root on a Debian-like system, missing system packages are installed; as an ordinary user they are named and
# the script ends. Safe to repeat: it does nothing when the locked files have not changed. PYTHON=… picks the
# interpreter, VENV=… the place, SYSTEM_PACKAGES=no leaves the system alone also as root.
set -euo pipefail
cd "$(dirname "$0")/.."
which=${1:-dev}
venv=${VENV:-.venv}
say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$@" >&2; exit 1; }
[ "$(uname -s)" = Linux ] || die "Guardhouse runs on Linux; this is $(uname -s)"

usable() { # usable PYTHON: 3.11 or later, and able to make a virtual environment
  command -v "$1" >/dev/null 2>&1 &&
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
    "$1" -c 'import venv, ensurepip' 2>/dev/null
}
pick_python() {
  # Debian's own interpreter first: its python3-seccomp fits it as it is.
  for candidate in ${PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11}; do
    if usable "$candidate"; then printf '%s\n' "$candidate"; return 0; fi
  done
  return 1
}

declare -A need=([bash]=bash [ps]=procps [ss]=iproute2 [unshare]=util-linux [openssl]=openssl)
missing=()
for tool in "${!need[@]}"; do command -v "$tool" >/dev/null 2>&1 || missing+=("${need[$tool]}"); done
python=$(pick_python) || missing+=(python3 python3-venv python3-seccomp)
if [ -n "$python" ] && [ "$(realpath "$(command -v "$python")")" = "$(realpath /usr/bin/python3 2>/dev/null)" ]; then
  [ -e /usr/lib/python3/dist-packages/seccomp.*.so ] 2>/dev/null ||
    compgen -G '/usr/lib/python3/dist-packages/seccomp.*.so' >/dev/null || missing+=(python3-seccomp)
elif [ -n "$python" ] && [ ! -x "$venv/bin/python" ]; then
  # Another interpreter: the binding is built for it unless Debian's happens to have the same ABI.
  command -v gcc >/dev/null 2>&1 || missing+=(gcc)
  compgen -G '/usr/lib/*/libseccomp.a' >/dev/null || missing+=(libseccomp-dev)
  command -v dpkg-source >/dev/null 2>&1 || missing+=(dpkg-dev)
fi

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && [ "${SYSTEM_PACKAGES:-yes}" = yes ]; then
    say "installing system packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update >/dev/null || say "apt-get update failed; trying with the lists that are there"
    apt-get -q install -y --no-install-recommends "${missing[@]}" >/dev/null || die "apt-get could not install: ${missing[*]}"
    python=$(pick_python) || die "no Python 3.11 or later with the venv module after installing python3 and python3-venv"
  elif [ -z "$python" ]; then
    die "these system packages are missing: ${missing[*]}" \
      "install them as root: apt-get install --no-install-recommends ${missing[*]}"
  else
    say "these system packages are missing: ${missing[*]}"
    say "  (apt-get install --no-install-recommends ${missing[*]} as root adds them; going on without)"
  fi
fi

stamp="$venv/.guardhouse-$which"
fingerprint=$(cat "requirements/$which.txt" pyproject.toml packaging/install_seccomp.py | sha256sum | cut -d' ' -f1)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$fingerprint" ] &&
  "$venv/bin/python" -c 'import guardhouse, seccomp' 2>/dev/null; then
  exit 0
fi

if [ ! -x "$venv/bin/python" ]; then
  say "making $venv with $("$python" --version) ($python)"
  "$python" -m venv "$venv"
fi
say "installing the locked dependencies (requirements/$which.txt, every file checked against its hash)"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-input --require-hashes -r "requirements/$which.txt"
"$venv/bin/python" packaging/install_seccomp.py
say "installing guardhouse itself from this directory"
# The build back end is one of the locked packages, so nothing unpinned is fetched for it.
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
printf '%s\n' "$fingerprint" >"$stamp"
say "ready: $venv/bin/guardhouse"
