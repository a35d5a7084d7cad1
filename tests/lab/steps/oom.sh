# SPDX-License-Identifier: Apache-2.0
# limit: 300
#
# Deflate on OOM: with most of the guest's memory in the balloon a process asks for more than is left, and lives.
. "${LAB:-/lab}/steps/lib.sh"

start_linux "boot;wait,inflated;meminfo;oom,150;meminfo" --console --memory 256M --budget 320M
wait_line 'EBB: waiting for inflated' 100
ask balloon 140M
at_least "bytes in the balloon" "$(show free balloon_bytes)" $((120 << 20))
tell inflated
done_linux 120
grep -q 'EBB: oom ok survived=yes' $work/ebb.log || fail "the process did not survive"
grep 'EBB: meminfo' $work/ebb.log | grep -q 'oom_kills=0' || fail "the guest killed a process"
