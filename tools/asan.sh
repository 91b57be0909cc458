#!/bin/sh
# Runs the Rust tests under AddressSanitizer, if the toolchain includes its runtime for this host.
set -eu

host=$(rustc -vV | sed -n 's/^host: //p')
library=$(rustc --print target-libdir)
for runtime in "$library"/*rt.asan.* "$library"/*rt_asan.*; do
    if [ -e "$runtime" ]; then
        # A stable compiler accepts the flag only with RUSTC_BOOTSTRAP. The flags differ, so the target folder does too.
        export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
        set -x
        exec cargo test --tests --target "$host" --target-dir target/asan
    fi
done
echo "AddressSanitizer: skipped, $(rustc --version) has no runtime for $host"
