#!/bin/sh
# Runs the adversarial campaigns of tests/soak for a given time: tools/soak.sh PYTHON MINUTES [further arguments].
set -eu

python=$1
shift
host=$(rustc -vV | sed -n 's/^host: //p')
asan=
# Python itself is built without AddressSanitizer, so the C compiler's runtime is preloaded for the extension.
runtime=$(gcc -print-file-name=libasan.so 2>/dev/null || true)
if [ -e "$runtime" ] && [ "$(uname -s)" = Linux ]; then
    # Built without link-time optimization, which would take minutes and find no more errors; the build is kept.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address PYO3_PYTHON=$python CARGO_PROFILE_RELEASE_LTO=off \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none \
        cargo build --quiet --release --lib --features python --target "$host" --target-dir target/soak/build
    rm -rf target/soak/package
    mkdir -p target/soak/package
    cp -r python/lrcore target/soak/package/
    cp "target/soak/build/$host/release/liblrcore.so" target/soak/package/lrcore/_lrcore.abi3.so
    asan=target/soak/package
else
    echo "AddressSanitizer: skipped, gcc has no libasan.so"
fi
PYTHONPATH=tests${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m soak "$@" ${asan:+--asan "$asan"}
