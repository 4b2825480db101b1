# Fetches the foreign drivers that tests/drivers runs, somewhere under target/, and runs them; plays a shop's workload.
#
# Sourced by ./test after scripts/need.sh, from the repository's root. Versions are pinned by requirements.txt and
# package-lock.json; they are fetched only when one of these has changed, and anew after an interruption.
#
# shellcheck shell=bash

DRIVERS_SOURCE=tests/drivers

# copy_drivers FOLDER: fails if they can't be fetched, after pip's or npm's own message.
copy_drivers() {
  local folder=$1 wanted
  wanted=$(cat "$DRIVERS_SOURCE/requirements.txt" "$DRIVERS_SOURCE/node/package-lock.json" | cksum)
  [ "$(cat "$folder/complete" 2>/dev/null)" = "$wanted" ] && return 0
  say "Fetching drivers (pip install, npm ci)"
  rm -rf "$folder"
  mkdir -p "$folder/node" || return
  python3 -m venv "$folder/venv" || return
  "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    -r "$DRIVERS_SOURCE/requirements.txt" </dev/null >&2 || return
  cp "$DRIVERS_SOURCE/node/package.json" "$DRIVERS_SOURCE/node/package-lock.json" "$folder/node/" || return
  npm ci --prefix "$folder/node" --no-audit --no-fund --no-update-notifier --loglevel=error --cache "$folder/npm" \
    </dev/null >&2 || return
  rm -rf "$folder/npm"
  echo "$wanted" >"$folder/complete"
}

# run_drivers FOLDER PROGRAM [OPTION…]: every behaviour directly and through PROGRAM, against a PostgreSQL of its own.
# What differs is printed as JSON; then "# pass N" and "# fail N".
run_drivers() {
  local folder=$1 program=$2
  shift 2
  NODE_PATH="$folder/node/node_modules" PYTHONDONTWRITEBYTECODE=1 \
    cargo run --locked --quiet --package tenfold-testkit --example with_postgres -- \
    --scram drivers --set max_prepared_transactions=20 --set wal_level=logical \
    "$folder/venv/bin/python" "$DRIVERS_SOURCE/run.py" --tenfold "$program" --listed docs/guide/pooler-differences.md "$@"
}

# play_workload FOLDER PROGRAM SHOP [OPTION…]: the recorded afternoon in a shop, directly and through PROGRAM with reads on
# two replicas; SHOP is a copy of the shop with its libraries. What was found is printed as JSON; then the same two lines.
play_workload() {
  local folder=$1 program=$2 shop=$3
  shift 3
  NODE_PATH="$folder/node/node_modules" PYTHONDONTWRITEBYTECODE=1 \
    cargo run --locked --quiet --package tenfold-testkit --example with_postgres -- --scram drivers --replicas 2 \
    "$folder/venv/bin/python" "$DRIVERS_SOURCE/workload.py" --tenfold "$program" --shop "$shop" "$@"
}
