#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# merge.sh [TARGET ...]: tests/fuzz/corpus/TARGET becomes the smallest set of inputs, of those kept and those found, that
# runs the same code (edges, not how often: so that it stays at a few dozen files).
set -eu
cd "$(dirname "$0")/../.."

[ $# -gt 0 ] || set -- $(cd tests/fuzz && ls fuzz_*.c | sed 's/\.c$//')
for target in "$@"; do
    kept=tests/fuzz/corpus/$target
    merged=build/fuzz/merged/$target
    rm -rf "$merged"
    mkdir -p "$kept" "$merged" "build/fuzz/corpus/$target"
    "build/fuzz/tests/fuzz/$target" -set_cover_merge=1 -use_counters=0 -max_len=2048 -verbosity=0 \
        "$merged" "$kept" "build/fuzz/corpus/$target" >build/fuzz/merge.log 2>&1 || {
        cat build/fuzz/merge.log
        exit 1
    }
    rm -f "$kept"/*
    cp "$merged"/* "$kept"/
    echo "$target: $(ls "$kept" | wc -l) inputs, $(du -sb "$kept" | cut -f1) bytes"
done
