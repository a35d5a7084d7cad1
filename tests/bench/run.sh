#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh [--quick] [--pairs N] [--cpu N]
#
# Runs every benchmark in build/bench and writes build/bench/results.json. Needs root: memory cgroups, zram, userfaultfd.
# What each figure means stands in docs/performance.md. --quick: one pair of small rounds, to see that all of it runs.
set -u
cd "$(dirname "$0")/../.." || exit 1

out=build/bench
lines=$out/lines.jsonl
if [ "$(id -u)" != 0 ]; then
    echo "make bench needs root: memory cgroups, zram and userfaultfd" >&2
    exit 1
fi

describe() {
    echo "machine: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) CPUs," \
        "$(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
    echo "kernel:  $(uname -r)"
    echo "commit:  $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
    echo "load:    $(cut -d ' ' -f 1-3 /proc/loadavg) (other work on this machine makes the figures worthless)"
}

describe
: >$lines
failed=0
for program in store block zipf vm scale tiers; do
    $out/bench_$program --json $lines "$@" || failed=1
done
{
    echo '{'
    describe | sed -n 's/^\([a-z]*\): *\(.*\)$/  "\1": "\2",/p'
    echo '  "rows": ['
    sed 's/^/    /; $!s/$/,/' $lines
    echo '  ]'
    echo '}'
} >$out/results.json
rm -f $lines
echo
echo "all figures: $out/results.json"
exit $failed
