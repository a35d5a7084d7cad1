#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# one.sh TARGET: runs build/fuzz/tests/fuzz/TARGET for FUZZ_SECONDS (60) from the kept corpus on. What it finds stands in
# build/fuzz/corpus/TARGET; an input that breaks something, in build/fuzz/found/. Fails when there is one.
set -eu
cd "$(dirname "$0")/../.."

target=$1
kept=tests/fuzz/corpus/$target
grown=build/fuzz/corpus/$target
mkdir -p "$kept" "$grown" build/fuzz/found
seconds=${FUZZ_SECONDS:-60}
# A minute and a half more: libFuzzer itself looks at the clock between inputs only.
exec timeout --kill-after=10 $((seconds + 90)) "build/fuzz/tests/fuzz/$target" \
    -max_total_time="$seconds" -timeout=20 -max_len=2048 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=1 \
    -artifact_prefix="build/fuzz/found/$target-" "$grown" "$kept"
