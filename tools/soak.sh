#!/bin/sh
# Runs the adversarial campaigns of tests/soak for some minutes: tools/soak.sh PYTHON MINUTES [further arguments].
set -eu

python=$1
shift
host=$(rustc -vV | sed -n 's/^host: //p')
asan=
# The extension with AddressSanitizer is loaded into a Python without: the C compiler's runtime is preloaded for that.
runtime=$(gcc -print-file-name=libasan.so 2>/dev/null || true)
if [ -e "$runtime" ] && [ "$(uname -s)" = Linux ]; then
    # Quick to build, and kept: link-time optimization would take minutes and hide nothing.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address PYO3_PYTHON=$python CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none \
        cargo build --quiet --release --lib --features python --target "$host" --target-dir target/soak/build
    rm -rf target/soak/package
    mkdir -p target/soak/package
    cp -r python/lrcore target/soak/package/
    cp "target/soak/build/$host/release/liblrcore.so" target/soak/package/lrcore/_lrcore.abi3.so
    asan=target/soak/package
else
    echo "AddressSanitizer: skipped, there is no libasan.so of gcc"
fi
PYTHONPATH=tests${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m soak "$@" ${asan:+--asan "$asan"}
