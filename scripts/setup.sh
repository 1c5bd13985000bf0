#!/usr/bin/env bash
# Installs what is missing on this machine, and says so. Does nothing, quickly, when all is there.
#
#   scripts/setup.sh run     what is needed to build and start the product
#   scripts/setup.sh test    also what its tests need
#
# System packages come from apt on Debian and Ubuntu (through sudo when not root); elsewhere they are only named.
source "$(dirname "$0")/say.sh"

purpose=${1:-run}
case $purpose in run | test) ;; *) fail "setup: unknown purpose \`$purpose\`" "use \`run\` or \`test\`" ;; esac

has_display() { [ "$(uname)" = Darwin ] || [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; }
wants_window() { [ "$purpose" = test ] || has_display; }

has_postgres() {
    has postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ||
        compgen -G '/usr/pgsql-*/bin/postgres' >/dev/null || compgen -G '/opt/homebrew/opt/postgresql@*/bin/postgres' >/dev/null
}
has_chromium() { has chromium || has chromium-browser || has google-chrome || [ -d '/Applications/Google Chrome.app' ]; }

# --- system packages ---------------------------------------------------------------------------------------------

wanted_packages() {
    echo build-essential ca-certificates git libssl-dev mold pkg-config
    has_postgres || echo postgresql
    if wants_window; then
        echo libayatana-appindicator3-dev librsvg2-dev libwebkit2gtk-4.1-dev libxdo-dev
    fi
    if [ "$purpose" = test ]; then
        echo dbus-x11 fonts-dejavu-core webkit2gtk-driver xauth xvfb
        has_chromium || echo chromium
    fi
}

missing_packages() {
    local package status
    for package in $(wanted_packages); do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || echo "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        fail "cannot install system packages: neither root nor sudo" "ask an administrator to run: $*"
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >&2
}

# The product runs a Postgres of its own and needs only the programs: the package must not also start one for the
# whole machine. A machine that has the package already keeps its settings.
install_postgres() {
    local settings=/etc/postgresql-common/createcluster.conf
    if dpkg-query -W postgresql-common >/dev/null 2>&1; then
        apt_install postgresql
        return
    fi
    apt_install postgresql-common
    as_root cp "$settings" "$settings.semo"
    as_root sed -i -E 's/^#?(create_main_cluster) *=.*/\1 = false/' "$settings"
    local outcome=0
    apt_install postgresql || outcome=$?
    as_root mv "$settings.semo" "$settings"
    return $outcome
}

system_packages_by_apt() {
    local missing
    missing=$(missing_packages | tr '\n' ' ')
    [ -n "${missing// /}" ] || return 0
    say "installing system packages: $missing"
    as_root apt-get update -q >&2 || fail "the package lists could not be brought up to date" "check the network, then try again"
    case " $missing " in *' postgresql '*)
        install_postgres || fail "postgresql could not be installed" "see the lines above"
        missing=${missing/postgresql /}
        ;;
    esac
    # shellcheck disable=SC2086
    [ -z "${missing// /}" ] || apt_install $missing || fail "system packages could not be installed: $missing" "see the lines above"
}

system_packages_by_name() {
    local missing=()
    has git || missing+=(git)
    has cc || missing+=("a C compiler")
    has pkg-config || missing+=(pkg-config)
    has_postgres || missing+=("the PostgreSQL server, 15 or newer")
    if [ "$(uname)" = Linux ]; then
        has mold || missing+=(mold)
        if wants_window && has pkg-config; then
            pkg-config --exists webkit2gtk-4.1 || missing+=("WebKitGTK 4.1 with headers (Fedora: webkit2gtk4.1-devel, Arch: webkit2gtk-4.1)")
            pkg-config --exists librsvg-2.0 || missing+=("librsvg with headers")
        fi
        [ "$purpose" = run ] || has xvfb-run || missing+=("xvfb-run")
    fi
    [ "$purpose" = run ] || has_chromium || missing+=("Chromium")
    [ ${#missing[@]} = 0 ] && return 0
    printf 'missing on this system: %s\n' "${missing[@]}" >&2
    fail "packages are missing, and this script knows only apt" "install them with the package manager of this system (macOS: brew install git pkg-config postgresql@16), then try again"
}

system_packages() {
    if has apt-get && has dpkg-query; then system_packages_by_apt; else system_packages_by_name; fi
}

# --- tools ---------------------------------------------------------------------------------------------------------

check_rust() {
    has cargo || fail "Rust is not installed" "install it from https://rustup.rs, open a new terminal, then try again"
}

check_node() {
    local how="install Node $NODE_MAJOR_MIN.$NODE_MINOR_MIN or newer from https://nodejs.org, then try again"
    has node && has npm || fail "Node is not installed" "$how"
    node -e "const [a, b] = process.versions.node.split('.').map(Number);
             process.exit(a > $NODE_MAJOR_MIN || (a === $NODE_MAJOR_MIN && b >= $NODE_MINOR_MIN) ? 0 : 1)" ||
        fail "Node $(node -v) is too old" "$how"
}

# npm_packages FOLDER: installs them when the lock file is another one than last time.
npm_packages() {
    local folder=$1 stamp=$1/node_modules/.installed-from
    [ -f "$folder/package-lock.json" ] || return 0
    cmp -s "$folder/package-lock.json" "$stamp" && return 0
    say "installing the npm packages of $folder"
    npm ci --prefix "$folder" --no-audit --no-fund >&2 || fail "the npm packages of $folder could not be installed" "check the network, then try again"
    cp "$folder/package-lock.json" "$stamp"
}

claude_in_tools() {
    local version
    version=$(sed -n 's/^ *"version": "\(.*\)",$/\1/p' .tools/node_modules/@anthropic-ai/claude-code/package.json 2>/dev/null || true)
    [ "$version" = "$CLAUDE_VERSION" ] && [ -x .tools/node_modules/.bin/claude ]
}

# A user's own `claude` is used as it is; the tests always use the version they are written against.
claude_program() {
    if [ "$purpose" = run ] && has claude; then return 0; fi
    if claude_in_tools; then return 0; fi
    say "installing Claude Code $CLAUDE_VERSION into .tools"
    mkdir -p .tools
    npm install --prefix .tools --no-save --no-package-lock --no-audit --no-fund "@anthropic-ai/claude-code@$CLAUDE_VERSION" >&2 ||
        fail "Claude Code could not be installed" "check the network, then try again"
    # Where npm is told not to run install scripts, a placeholder stands in place of the program.
    if ! .tools/node_modules/.bin/claude --version >/dev/null 2>&1; then
        node .tools/node_modules/@anthropic-ai/claude-code/install.cjs >&2 ||
            fail "Claude Code was installed, but does not start" "try: .tools/node_modules/.bin/claude --version"
    fi
}

# What this script cannot install is told first, before anything is changed.
check_rust
check_node
system_packages
npm_packages ui
claude_program
if [ "$purpose" = test ]; then
    npm_packages tests/ui
fi
