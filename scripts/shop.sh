# Puts a copy of examples/shop with its libraries somewhere under target/, so that the source tree stays as it is.
#
# Sourced by ./demo and ./test after scripts/need.sh, from the repository's root. The libraries are fetched (npm ci, by
# lock file) only when the lock file has changed; a copy that was interrupted is made anew.
#
# shellcheck shell=bash

SHOP_SOURCE=examples/shop

# copy_shop FOLDER [NPM OPTION…]: fails if the libraries can't be fetched, after npm's own message.
copy_shop() {
  local copy=$1 cache="$1-npm"
  shift
  if ! cmp -s "$SHOP_SOURCE/package-lock.json" "$copy/package-lock.json" || [ ! -e "$copy/node_modules/.complete" ]; then
    say "Fetching the shop's libraries (npm ci)"
    rm -rf "$copy"
    mkdir -p "$copy" || return
    cp "$SHOP_SOURCE/package.json" "$SHOP_SOURCE/package-lock.json" "$copy/" || return
    npm ci --prefix "$copy" --no-audit --no-fund --no-update-notifier --loglevel=error --cache "$cache" "$@" \
      </dev/null >&2 || {
      say "npm ci failed; free on its disk: $(df -Ph "$copy" | awk 'NR == 2 { print $4 }')"
      rm -rf "$cache"
      return 1
    }
    rm -rf "$cache"
    touch "$copy/node_modules/.complete" || return
  fi
  find "$copy" -mindepth 1 -maxdepth 1 ! -name node_modules -exec rm -rf {} + || return
  tar -C "$SHOP_SOURCE" --exclude=./node_modules -cf - . | tar -C "$copy" -xf -
}
