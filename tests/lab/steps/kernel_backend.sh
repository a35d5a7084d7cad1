# SPDX-License-Identifier: Apache-2.0
# limit: 200
#
# `--backend kernel` with cgroup v2: the other arm of comparisons, the kernel's own reclaim and zram, on a kernel of a
# distribution.
. "${LAB:-/lab}/steps/lib.sh"

mkdir -p /sys/fs/cgroup
grep -q ' /sys/fs/cgroup cgroup2 ' /proc/mounts || mount -t cgroup2 none /sys/fs/cgroup || fail "no cgroup v2"
ebb run --backend kernel --memory 64M --budget 24M --zram 24M \
    --workload 'fill:40M,pattern=text;zipf:40M,ops=2000,write=30;verify' --json $work/out.json >$work/log 2>&1
code=$?
cat $work/log
same "exit code" $code 0
same "the result" "$(json $work/out.json result)" ok
same "bad pages" "$(json $work/out.json pages_bad)" 0
at_least "verified pages" "$(json $work/out.json pages_verified)" 10240
same "cgroups left" "$(ls -d /sys/fs/cgroup/ebb* 2>/dev/null)" ""
