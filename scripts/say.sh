# Sourced by the other scripts: where we are, and how we speak to the person.
# shellcheck shell=bash

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The version of Claude Code that the input rules and the stories are written against.
CLAUDE_VERSION=2.1.197
NODE_MAJOR_MIN=20
NODE_MINOR_MIN=19
POSTGRES_MAJOR_MIN=15

# A toolchain that rustup has installed, but that this shell has not been told of.
[ -d "$HOME/.cargo/bin" ] && case ":$PATH:" in *":$HOME/.cargo/bin:"*) ;; *) PATH="$PATH:$HOME/.cargo/bin" ;; esac

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }

# fail WHAT [WHAT TO DO]
fail() {
    printf 'error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf '  hint: %s\n' "$2" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }
