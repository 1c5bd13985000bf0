#!/usr/bin/env bash
# Builds ui/dist when a source is newer than it.
source "$(dirname "$0")/say.sh"

built=ui/dist/index.html
if [ -f "$built" ]; then
    newer=$(find ui -path ui/node_modules -prune -o -path ui/dist -prune -o -type f -newer "$built" -print -quit)
    [ -n "$newer" ] || exit 0
fi
say "building the page"
npm run --prefix ui --silent build >&2
touch "$built"
