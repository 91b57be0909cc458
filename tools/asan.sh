#!/bin/sh
# Runs the Rust tests under AddressSanitizer, where the toolchain has its runtime for this host.
set -eu

host=$(rustc -vV | sed -n 's/^host: //p')
library=$(rustc --print target-libdir)
for runtime in "$library"/*rt.asan.* "$library"/*rt_asan.*; do
    if [ -e "$runtime" ]; then
        # A stable compiler takes the flag only if told so. The tests have a folder of their own, since flags differ.
        export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
        set -x
        exec cargo test --tests --target "$host" --target-dir target/asan
    fi
done
echo "AddressSanitizer: skipped, $(rustc --version) has no runtime of it for $host"
