#!/bin/sh
# Builds a wheel into dist, audits it, and tests it as users get it: installed in a clean environment, outside the source
# tree.
#
# usage: tools/wheel.sh PYTHON
#   PYTHON  an interpreter with the dependency group "wheel"
set -eu

cd "$(dirname "$0")/.."
root=$PWD
bin=$(cd "$(dirname "$1")" && pwd)
python=$bin/$(basename "$1")
limit=5000000

build() {
    rm -rf dist
    if [ "$(uname -s)" = Linux ]; then
        # Zig links against an old glibc, so the wheel runs on every distribution since 2014.
        PATH=$bin:$PATH "$python" -m maturin build --release --locked --out dist --zig --compatibility manylinux2014
    else
        "$python" -m maturin build --release --locked --out dist
    fi
}

audit() {
    "$python" -m abi3audit --strict --summary "$1"
    size=$(wc -c <"$1")
    printf '%s: %s bytes, of %s allowed\n' "$(basename "$1")" $((size)) $limit
    if [ "$size" -gt $limit ]; then
        echo "the wheel is too large" >&2
        exit 1
    fi
}

# try WHEEL FOLDER: installs the wheel with only its dependencies and steps once, then runs the repository's tests.
try() {
    cd "$2"
    "$python" -m venv environment
    environment/bin/python -m pip install --quiet --upgrade "pip>=25.1"
    environment/bin/python -m pip install --quiet "$1"
    environment/bin/python -I "$root/tools/try_installed.py"
    environment/bin/python -m pip install --quiet --group "$root/pyproject.toml:test"
    environment/bin/python -m pytest -p no:cacheprovider --rootdir "$root" -c "$root/pyproject.toml" "$root/tests"
}

build
set -- "$root"/dist/*.whl
audit "$1"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
try "$1" "$folder"
