#!/usr/bin/env bash
# Runs a command whose database is behind Tenfold's pooler. DATABASE_URL names the server, by a user that needs no
# password; the command is given one that names the pooler, on a Unix socket in a folder that goes with it.
#
#   TENFOLD=target/debug/tenfold scripts/pooled.sh npm test
set -euo pipefail

folder=$(mktemp -d)
tenfold=
finish() {
  local status=$?
  [ -z "$tenfold" ] || { kill -TERM "$tenfold" 2>/dev/null && wait "$tenfold"; } || true
  [ "$status" -eq 0 ] || cat "$folder/tenfold.log" >&2
  rm -rf "$folder"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

cat >"$folder/tenfold.toml" <<TOML
[admin]
listen = "127.0.0.1:0"

[pooler]
listen = "unix:$folder:5432"
auth = "trust"

[database.postgres]
primary = "$DATABASE_URL"
pool = { size = 10, reserve = 2 }
TOML
"$TENFOLD" run -c "$folder/tenfold.toml" >"$folder/tenfold.log" 2>&1 &
tenfold=$!
until [ -S "$folder/.s.PGSQL.5432" ]; do
  kill -0 "$tenfold" 2>/dev/null || exit 1
  sleep 0.05
done
DATABASE_URL="postgresql://postgres@localhost/postgres?host=$folder" "$@"
