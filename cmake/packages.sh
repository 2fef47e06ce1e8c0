# Which packages of Debian are needed for what, and how the missing ones are installed (install-packages). Sourced by
# ../quickstart, ../check and ../tests/bench/run, so that they agree; it lies in cmake/ because the first list is what CMakeLists.txt
# looks for.
# shellcheck shell=bash disable=SC2034

# To build evapid, evapictl and the module. dpkg-dev, bison and flex: for Kamailio's source (fetch-kamailio-source); libssl-dev: its
# makefile looks whether that is there, and Debian builds its Kamailio where it is.
packages_build=(build-essential cmake ninja-build pkg-config libuv1-dev libjansson-dev libsystemd-dev libmicrohttpd-dev libncurses-dev
    uthash-dev dpkg-dev bison flex libssl-dev)

# To make its Debian packages of that: CPack asks file which of the files are programs.
packages_pack=(file)

# To run it with a real Kamailio.
packages_run=(kamailio python3)

# To check it: unit tests, formatting, static analysis, and system tests, some of them with a routing script in Lua or Python, others
# under the unit's rules (systemd has systemd-analyze, which knows them), or with a Prometheus that looks on; terminals and shells for
# evapictl; SIP load and a memory checker for the soak; kamcli, one of Kamailio's tools (kamcmd comes with Kamailio); jq, which
# evapictl(1) shows; what the programs in docs/examples need; and kamailio-extra-modules, which has the EVAPI that docs/migration.md leads away from. Of
# postgresql only the programs are used, for a database in a temporary folder: the cluster that its package makes stays alone.
packages_check=(libcmocka-dev clang-format clang-tidy kamailio-lua-modules kamailio-python3-modules sip-tester python3-pytest python3-pytest-xdist systemd libseccomp2
    prometheus tmux zsh bash-completion valgrind kamcli kamailio-extra-modules nodejs chromium postgresql python3-psycopg2 lua5.1 lua-posix socat jq)

# To fuzz it: libFuzzer and its sanitizers.
packages_fuzz=(clang libclang-rt-dev)

# To try it with other versions of Kamailio (tests/versions/run): Lua and Python, for their app_lua and app_python3.
packages_versions=(liblua5.1-0-dev python3-dev)

# To try its Debian packages, in Debians of their own (tests/package, tests/fresh).
packages_package=(debootstrap lintian git)

# To measure it: what it is compared with, SIP load, and plots.
packages_bench=(redis-server nats-server sip-tester gnuplot-nox)

# Install those of the named packages that are missing, and leave no service of theirs running or enabled. Nothing is asked for,
# and apt isn't touched, when none is. Returns 1 with the command to run when there are no rights to do it.
install_packages() {
    local package missing=() as_root=()
    if ! command -v dpkg-query > /dev/null; then
        echo "Not a Debian system: what is needed must be there already: $*" >&2
        return 0
    fi
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0

    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2> /dev/null && ! { [ -t 0 ] && command -v sudo > /dev/null; }; then
            echo "Packages are missing, and installing them needs root. Run this, then try again:" >&2
            echo "    apt-get install --no-install-recommends ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    echo "Installing ${missing[*]}"
    "${as_root[@]}" "$(dirname "${BASH_SOURCE[0]}")/install-packages" "${missing[@]}" || {
        echo "apt-get could not install: ${missing[*]}" >&2
        return 1
    }
}
