#!/bin/sh
# The first line printed names what is missing on this machine and how to fix it; prints nothing if nothing is missing.
#
# usage: tools/preflight.sh PYTHON ORIGIN
#   PYTHON  the interpreter for .venv
#   ORIGIN  make's origin of the variable: "command line" if it was chosen for this call
set -u

PYTHON=$1
ORIGIN=$2

fail() {
    printf 'lrcore: %s\n' "$@"
    exit 1
}

# older A B: whether version A comes before version B.
older() {
    printf '%s\n%s\n' "$1" "$2" | awk -F. '
        NR == 1 { major = $1; minor = $2 }
        NR == 2 { exit !(major + 0 < $1 + 0 || (major + 0 == $1 + 0 && minor + 0 < $2 + 0)) }'
}

check_rust() {
    need=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' Cargo.toml)
    for program in cargo rustc; do
        if ! command -v "$program" >/dev/null; then
            if [ -x "$HOME/.cargo/bin/$program" ]; then
                fail "$program is installed but not on the PATH; run: . \"\$HOME/.cargo/env\""
            fi
            fail "$program is missing; install Rust $need or newer from https://rustup.rs, then open a new shell"
        fi
        if ! output=$("$program" --version 2>&1); then
            fail "$program does not run; with rustup, install a toolchain: rustup default stable" "it prints: $output"
        fi
    done
    have=$(rustc --version | awk '{ print $2 }')
    if older "$have" "$need"; then
        fail "Rust is $have, and $need or newer is needed; run: rustup update stable (or see https://rustup.rs)"
    fi
    if ! command -v cc >/dev/null; then
        fail "a C compiler is missing (cc), which Rust needs for linking; install gcc or clang" \
            "on Debian and Ubuntu: apt install gcc; on Fedora: dnf install gcc; on macOS: xcode-select --install"
    fi
}

version_of() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null
}

base_of() {
    "$1" -c 'import sys; print(sys.base_prefix)' 2>/dev/null
}

# Advice if the interpreter is missing or too old: another one on the PATH, or where to get one.
other_python() {
    for minor in 14 13 12 11; do
        if ! older "3.$minor" "$need" && version_of "python3.$minor" >/dev/null; then
            echo "run again with PYTHON=python3.$minor"
            return
        fi
    done
    echo "install it from https://www.python.org or your system's packages, or choose another: PYTHON=/path/to/python3"
}

check_python() {
    need=$(sed -n 's/^requires-python *= *">=\([0-9.]*\)".*/\1/p' pyproject.toml)
    if ! have=$(version_of "$PYTHON"); then
        fail "Python $need or newer is missing ($PYTHON does not run); $(other_python)"
    fi
    if older "$have" "$need"; then
        fail "$PYTHON is Python $have, and $need or newer is needed; $(other_python)"
    fi
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        fail "$PYTHON (Python $have) comes without venv; on Debian and Ubuntu: apt install python${have%.*}-venv"
    fi
}

check_environment() {
    if ! have=$(version_of .venv/bin/python); then
        fail ".venv is broken: its Python does not run; run make clean, then try again"
    fi
    if [ "$ORIGIN" = "command line" ] && [ "$(base_of "$PYTHON")" != "$(base_of .venv/bin/python)" ]; then
        fail ".venv belongs to another interpreter (Python $have) than PYTHON=$PYTHON; run make clean, then try again"
    fi
}

cd "$(dirname "$0")/.." || exit 1
check_rust
if [ -d .venv ]; then
    check_environment
else
    check_python
fi
