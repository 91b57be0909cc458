#!/usr/bin/env bash
# Lints the crate for other platforms, builds it for ARM Linux, and tests it there under an emulator.
#
# A rustup toolchain has the standard library of its own host only. Debian packages the standard library's sources and
# dependencies for each Rust release, so a copy of the toolchain with these sources can build it for any target. Zig is the
# linker, qemu-user the emulator, and the interpreter is Debian's for arm64, with wheels from PyPI. Everything is in
# target/cross, each part fetched once: about 3 GB, in a few minutes.
#
# Requires Debian, or a system with Debian's keys, on x86-64. Packages are fetched by apt-get and pip; none is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
cross=$PWD/target/cross
python=${1:-python3}
suite=trixie
interpreter=3.13
mkdir -p "$cross"

say() { printf '\n== %s\n' "$*"; }
fail() { printf 'cross: %s\n' "$*" >&2 && exit 1; }

# Runs a function that fills the folder of its name, unless that is complete. An incomplete folder is rebuilt.
part() {
    [ -e "$cross/$1/.done" ] && return
    say "fetching $1"
    rm -rf "${cross:?}/$1"
    mkdir -p "$cross/$1"
    "$1" "$cross/$1"
    touch "$cross/$1/.done"
}

# Separate package lists, for two architectures; the system's are not changed.
apt() {
    command -v apt-get >/dev/null || fail "apt-get is required, for packages of Debian"
    local mirror=${DEBIAN_MIRROR:-} keys=/usr/share/keyrings/debian-archive-keyring.gpg
    # shellcheck disable=SC2016  # apt-get fills these in
    [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(SITE)' 'Created-By: Packages' |
        sed -n '/^Debian Debian /{s///p;q}')
    [ -n "$mirror" ] || fail "apt has no mirror of Debian; run apt-get update, or set DEBIAN_MIRROR"
    mkdir -p "$1"/{lists/partial,cache/archives/partial,parts}
    touch "$1/status"
    printf 'deb [arch=amd64,arm64 signed-by=%s] %s %s main\n' \
        "$keys" "$mirror" "$suite" "$keys" "$mirror" "$suite-backports" >"$1/sources.list"
    cat >"$1/apt.conf" <<-CONF
	Dir::Etc::sourcelist "$1/sources.list";
	Dir::Etc::sourceparts "$1/parts";
	Dir::Etc::preferencesparts "$1/parts";
	Dir::State "$1";
	Dir::State::status "$1/status";
	Dir::Cache "$1/cache";
	APT::Architectures { "amd64"; "arm64"; };
	APT::Sandbox::User "root";
	Acquire::Languages "none";
	CONF
    APT_CONFIG=$1/apt.conf apt-get --quiet --quiet update || fail "cannot fetch the package lists of $suite"
}

# Unpacks packages, given by their apt-get names, into a folder.
unpack() {
    local into=$1 packages
    shift
    packages=$(mktemp -d)
    (cd "$packages" && APT_CONFIG=$cross/apt/apt.conf apt-get --quiet --quiet download "$@") ||
        fail "cannot fetch from $suite: $*"
    for package in "$packages"/*.deb; do dpkg-deb --extract "$package" "$into"; done
    rm -r "$packages"
}

venv() {
    "$python" -m venv "$1"
    "$1/bin/pip" --quiet install "cargo-zigbuild>=0.20" "ziglang>=0.13" || fail "cannot install cargo-zigbuild or ziglang from PyPI"
}

sysroot() {
    local release package
    release=$(rustc --version | cut -d' ' -f2)
    package=$(APT_CONFIG=$cross/apt/apt.conf apt-cache madison rust-src |
        awk -v release="$release" 'index($3, release "+") == 1 { print $3; exit }')
    [ -n "$package" ] || fail "$suite and its backports have no rust-src for Rust $release, the version of rustc"
    unpack "$1/source" "rust-src=$package"
    cp -a "$(rustc --print sysroot)"/{bin,lib} "$1"
    mkdir -p "$1/lib/rustlib/src/rust"
    mv "$1/source/usr/src/rustc-$release/library" "$1/lib/rustlib/src/rust"
    rm -r "$1/source"
}

qemu() { unpack "$1" qemu-user:amd64; }

# The interpreter, and the libraries required by it and by the wheels.
root() {
    local packages=(python$interpreter python$interpreter-minimal libpython$interpreter-{minimal,stdlib} libc6 libgcc-s1 libstdc++6
        libbz2-1.0 libdb5.3t64 libexpat1 libffi8 liblzma5 libncursesw6 libreadline8t64 libsqlite3-0 libssl3t64 libtinfo6
        libuuid1 libzstd1 zlib1g)
    unpack "$1" "${packages[@]/%/:arm64}"
    [ -e "$1/lib" ] || ln -s usr/lib "$1/lib"
}

site() {
    "$cross/venv/bin/pip" --quiet install --target "$1" --only-binary :all: --python-version "$interpreter" \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        "numpy>=1.26" "pytest>=8.2" "hypothesis>=6.100" || fail "PyPI has no wheels for Python $interpreter on aarch64"
}

for name in apt venv sysroot qemu root site; do part "$name"; done

arm=aarch64-unknown-linux-gnu
emulate=("$cross/qemu/usr/bin/qemu-aarch64" -L "$cross/root")
export PATH=$cross/sysroot/bin:$cross/venv/bin:$PATH RUSTUP_TOOLCHAIN='' RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR=$cross/build CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${emulate[*]}"
# Building an extension for the stable ABI does not need an interpreter.
export PYO3_NO_PYTHON=1 PYO3_BUILD_EXTENSION_MODULE=1
unset PYO3_PYTHON RUSTC RUSTFLAGS
std=(-Zbuild-std=std,panic_unwind,test)

# The standard library for Windows needs a dlltool, which cargo-zigbuild provides, and its `thread_local!` hides from clippy
# that an initializer is `const` (rust-lang/rust-clippy#17566).
lints() {
    local clippy=(cargo clippy) flags=(-D warnings)
    [[ $1 != *-windows-gnu ]] || clippy=(cargo-zigbuild clippy) flags+=(-A clippy::missing_const_for_thread_local)
    say "lints for $1"
    "${clippy[@]}" "${std[@]}" --quiet --lib --target "$1" -- "${flags[@]}"
    "${clippy[@]}" "${std[@]}" --quiet --lib --features python --target "$1" -- "${flags[@]}"
}
for target in $arm x86_64-pc-windows-gnu aarch64-apple-darwin x86_64-unknown-linux-musl; do lints $target; done

# Nothing is measured here and no result depends on the optimisation level, so optimise for build time.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
# Longer arrays test the division of work among threads, which is the same on every platform and would take hours here.
export LRCORE_TEST_LONGEST=${LRCORE_TEST_LONGEST:-32769}

say "Rust tests on $arm"
cargo-zigbuild test "${std[@]}" --quiet --release --lib --tests --target $arm

say "the extension on $arm"
cargo-zigbuild zigbuild "${std[@]}" --quiet --release --lib --features python --target $arm
rm -rf "$cross/package"
mkdir "$cross/package"
cp -R python/lrcore "$cross/package"
rm -f "$cross"/package/lrcore/*.so
cp "$cross/build/$arm/release/liblrcore.so" "$cross/package/lrcore/_lrcore.abi3.so"

say "bitwise tests on $arm"
trap 'jobs -p | xargs -r kill' EXIT
running=()
# Every rule, level, length and layout, and the sums of statistics; other tests take half an hour in the emulator.
for name in bitwise stats; do
    PYTHONPATH=$cross/package:$cross/site "${emulate[@]}" "$cross/root/usr/bin/python$interpreter" -B -m pytest -q -p no:cacheprovider \
        "tests/optim/test_$name.py" >"$cross/$name.log" 2>&1 &
    running[$!]=$name
done
failed=
for process in "${!running[@]}"; do
    wait "$process" || failed+=" ${running[process]}"
    cat "$cross/${running[process]}.log"
done
[ -z "$failed" ] || fail "failed:$failed"
