# Installs what a command of this repository needs, or says exactly what is missing.
#
# Sourced by ./test, ./demo and bench/*. `need WHAT…` collects what is absent; on Debian and Ubuntu it is installed
# from the distribution's packages, as root or through sudo, with at most one `apt-get update`; anywhere else, or
# without the right to install, the packages are named and the command ends with 1. What is there already is never
# touched, upgraded or reconfigured.
#
# One setting outside the clone is made, and only when PostgreSQL has to be installed: `create_main_cluster = false` in
# /etc/postgresql-common/createcluster.conf, so that the package does not start a database of its own.
#
# shellcheck shell=bash

CREATECLUSTER_CONF=/etc/postgresql-common/createcluster.conf
# How to become root: nothing, or sudo.
as_root=()

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# PostgreSQL's server programs are not on the path in Debian: they sit under their version.
has_postgresql() {
  has initdb && has postgres && return 0
  local initdb
  for initdb in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb; do
    [ -x "$initdb" ] && return 0
  done
  return 1
}

# What a word of `need` looks like when it is there, and the Debian packages that bring it.
is_present() {
  case $1 in
    cc)         has cc ;;
    postgresql) has_postgresql ;;
    node)       has node ;;
    npm)        has npm ;;
    redis)      has redis-server || has valkey-server ;;
    curl)       has curl ;;
    nginx)      has nginx ;;
    haproxy)    has haproxy ;;
    varnish)    has varnishd ;;
    pgbouncer)  has pgbouncer ;;
    wrk)        has wrk ;;
    taskset)    has taskset ;;
    python)     python3 -c 'import ensurepip, venv' 2>/dev/null ;;
    *)          die "need: unknown word '$1'" ;;
  esac
}

packages_for() {
  case $1 in
    cc)      echo "gcc libc6-dev" ;;
    node)    echo "nodejs" ;;
    taskset) echo "util-linux" ;;
    redis)   echo "redis-server" ;;
    python)  echo "python3 python3-venv" ;;
    *)       echo "$1" ;;
  esac
}

# Rust is the one thing we ask for by hand: the distribution's is usually too old.
need_rust() {
  if ! has cargo && [ -x "$HOME/.cargo/bin/cargo" ]; then
    PATH="$HOME/.cargo/bin:$PATH"
  fi
  has cargo || die "cargo is missing. Install Rust 1.88 or newer from https://rustup.rs, then run this again."
}

need() {
  local word missing=() packages=()
  for word in "$@"; do
    is_present "$word" || missing+=("$word")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  for word in "${missing[@]}"; do
    # shellcheck disable=SC2207 # package names hold no spaces or globs
    packages+=($(packages_for "$word"))
  done
  has apt-get || die "missing: ${missing[*]}. On this system install them by hand (on Debian: ${packages[*]}), then run this again."
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || refuse "${packages[*]}"
    # Without a terminal nobody can type a password, so ask sudo not to wait for one.
    if [ -t 0 ]; then as_root=(sudo); else as_root=(sudo -n); fi
    "${as_root[@]}" true 2>/dev/null || refuse "${packages[*]}"
  fi
  install_packages "${packages[@]}"
  for word in "${missing[@]}"; do
    is_present "$word" || die "$word is still missing after installing $(packages_for "$word")"
  done
}

refuse() {
  die "missing packages and no right to install them. Run: apt-get install --no-install-recommends $1
       (for PostgreSQL, first put 'create_main_cluster = false' in $CREATECLUSTER_CONF to keep it from starting a database)"
}

install_packages() {
  say "Refreshing the package lists (apt-get update)"
  apt update
  case " $* " in
    *" postgresql "*) forbid_main_cluster ;;
  esac
  say "Installing from the distribution: $*"
  (
    trap allow_services EXIT
    trap 'exit 130' INT TERM
    forbid_services
    apt install --no-install-recommends "$@"
  ) || exit
}

# Debian starts the services it installs, and nobody asked for an nginx on port 80. A policy file keeps it from doing so
# for the moment of the installation; one that is there already is somebody else's and stays as it is.
POLICY=/usr/sbin/policy-rc.d
POLICY_MARK="for one installation by a script of tenfold"

forbid_services() {
  [ -e "$POLICY" ] && return 0
  printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_MARK" | "${as_root[@]}" tee "$POLICY" >/dev/null
  "${as_root[@]}" chmod +x "$POLICY"
}

allow_services() {
  if grep -qs "$POLICY_MARK" "$POLICY"; then "${as_root[@]}" rm -f "$POLICY"; fi
}

# The setting's file belongs to postgresql-common, so that comes first: writing the file before its package would make
# dpkg ask whose version to keep.
forbid_main_cluster() {
  apt install --no-install-recommends postgresql-common
  grep -Eqs '^[[:space:]]*create_main_cluster' "$CREATECLUSTER_CONF" && return 0
  say "Setting create_main_cluster = false in $CREATECLUSTER_CONF, so that no database is started by the package"
  echo 'create_main_cluster = false' | "${as_root[@]}" tee -a "$CREATECLUSTER_CONF" >/dev/null
}

# apt-get without questions; its output only where it failed.
apt() {
  local log
  log=$(mktemp)
  if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@" >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    rm -f "$log"
    die "apt-get $* failed"
  fi
  rm -f "$log"
}
