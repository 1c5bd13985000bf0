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

# The newest major version of the servers that the product would find (crate hub, postgres/locate.rs); 0 when none.
postgres_major() {
    local folder major newest=0
    for folder in "${SEMO_POSTGRES_BIN:-}" "$(pg_config --bindir 2>/dev/null || true)" \
        /usr/lib/postgresql/*/bin /usr/local/lib/postgresql/*/bin /Library/PostgreSQL/*/bin \
        /opt/homebrew/opt/postgresql@{18,17}/bin /opt/homebrew/bin /usr/local/pgsql/bin /usr/local/bin /usr/bin; do
        [ -x "$folder/postgres" ] && [ -x "$folder/initdb" ] || continue
        major=$("$folder/postgres" --version 2>/dev/null | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p' || true)
        [ "${major:-0}" -le "$newest" ] || newest=$major
    done
    echo "$newest"
}
has_postgres() { [ "$(postgres_major)" -ge "$POSTGRES_MAJOR_MIN" ]; }
# With what makes a virtual environment (Debian packs it apart).
has_python() { has python3 && python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }
has_chromium() { has chromium || has chromium-browser || has google-chrome || [ -d '/Applications/Google Chrome.app' ]; }

# --- system packages ---------------------------------------------------------------------------------------------

wanted_packages() {
    echo build-essential ca-certificates git libssl-dev mold pkg-config
    has_postgres || echo postgresql
    if wants_window; then
        echo libayatana-appindicator3-dev librsvg2-dev libwebkit2gtk-4.1-dev libxdo-dev
    fi
    if [ "$purpose" = test ]; then
        echo dbus-x11 fonts-dejavu-core procps webkit2gtk-driver xauth xvfb
        has_chromium || echo chromium
        has_python || echo python3 python3-venv
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

postgres_too_old() {
    fail "PostgreSQL $POSTGRES_MAJOR_MIN or newer is needed, and $1" \
        "add the packages of https://apt.postgresql.org (sudo apt-get install postgresql-common; sudo /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh), then: sudo apt-get install postgresql-17; then try again"
}

# Ubuntu 22.04 has 14: told before anything is installed.
check_postgres_package() {
    local offered
    offered=$(apt-cache policy postgresql 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*\).*/\1/p' || true)
    [ -z "$offered" ] || [ "$offered" -ge "$POSTGRES_MAJOR_MIN" ] ||
        postgres_too_old "this distribution offers $offered"
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
    if [ -z "${missing// /}" ]; then
        has_postgres || postgres_too_old "this machine has $(postgres_major)"
        return 0
    fi
    say "installing system packages: $missing"
    as_root apt-get update -q >&2 || fail "the package lists could not be brought up to date" "check the network, then try again"
    has_postgres || check_postgres_package
    case " $missing " in *' postgresql '*)
        install_postgres || fail "postgresql could not be installed" "see the lines above"
        missing=${missing/postgresql /}
        ;;
    esac
    # shellcheck disable=SC2086
    [ -z "${missing// /}" ] || apt_install $missing || fail "system packages could not be installed: $missing" "see the lines above"
    has_postgres || postgres_too_old "this machine has $(postgres_major)"
}

system_packages_by_name() {
    local missing=()
    has git || missing+=(git)
    has cc || missing+=("a C compiler")
    [ "$purpose" = run ] || has c++ || missing+=("a C++ compiler")
    has pkg-config || missing+=(pkg-config)
    has_postgres || missing+=("the PostgreSQL server, $POSTGRES_MAJOR_MIN or newer")
    if [ "$(uname)" = Linux ]; then
        has mold || missing+=(mold)
        if wants_window && has pkg-config; then
            pkg-config --exists webkit2gtk-4.1 || missing+=("WebKitGTK 4.1 with headers (Fedora: webkit2gtk4.1-devel, Arch: webkit2gtk-4.1)")
            pkg-config --exists librsvg-2.0 || missing+=("librsvg with headers")
        fi
        [ "$purpose" = run ] || has xvfb-run || missing+=("xvfb-run")
        [ "$purpose" = run ] || { has ps && has kill; } || missing+=("ps and kill (procps)")
    fi
    [ "$purpose" = run ] || has_chromium || missing+=("Chromium")
    [ "$purpose" = run ] || has_python || missing+=("Python 3.10 or newer, with venv")
    [ ${#missing[@]} = 0 ] && return 0
    printf 'missing on this system: %s\n' "${missing[@]}" >&2
    fail "packages are missing, and this script knows only apt" "install them with the package manager of this system (macOS: brew install git pkg-config postgresql@17), then try again"
}

system_packages() {
    if has apt-get && has dpkg-query; then system_packages_by_apt; else system_packages_by_name; fi
}

# --- tools ---------------------------------------------------------------------------------------------------------

check_rust() {
    local wanted found
    has cargo && has rustc || fail "Rust is not installed" "install it from https://rustup.rs, open a new terminal, then try again"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(rustc --version | sed -n 's/^rustc \([0-9.]*\).*/\1/p') && [ -n "$found" ] ||
        fail "rustc does not say its version" "with rustup: \`rustup default stable\`, then try again"
    at_least "$found" "$wanted" ||
        fail "Rust $found is too old; $wanted or newer is needed" \
            "with rustup: \`rustup update stable\`; else remove the system's Rust and install it from https://rustup.rs, then try again"
}

# at_least VERSION WANTED, by major and minor number
at_least() {
    local major minor wanted_major wanted_minor
    IFS=. read -r major minor _ <<<"$1"
    IFS=. read -r wanted_major wanted_minor _ <<<"$2"
    [ "$major" -gt "$wanted_major" ] || { [ "$major" -eq "$wanted_major" ] && [ "${minor:-0}" -ge "${wanted_minor:-0}" ]; }
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

# The official Python client, for the stories of the hub: in an environment of its own, made when the list is another one
# than last time.
python_packages() {
    local list=tests/clients/py/requirements.txt folder=.tools/python
    cmp -s "$list" "$folder/.installed-from" && return 0
    say "installing the Python packages of tests/clients"
    rm -rf "$folder"
    mkdir -p .tools
    python3 -m venv "$folder" >&2 || fail "a Python environment could not be made in $folder" "Debian, Ubuntu: sudo apt-get install python3-venv; then try again"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$list" >&2 ||
        fail "the Python packages of tests/clients could not be installed" "check the network, then try again"
    cp "$list" "$folder/.installed-from"
}

# What this script cannot install is told first, before anything is changed.
check_rust
check_node
system_packages
npm_packages ui
claude_program
if [ "$purpose" = test ]; then
    npm_packages tests/ui
    npm_packages tests/clients
    python_packages
fi
