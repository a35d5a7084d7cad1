# SPDX-License-Identifier: Apache-2.0
# limit: 300
#
# Inflating 256 MiB of 512 gives at least 95% of it back to the host; deflated, the guest can use all of it. The guest does
# not report free pages by itself here, and 2 MiB leave by one call where the guest gives them up together.
. "${LAB:-/lab}/steps/lib.sh"

start_linux "boot;touch,420;wait,inflated;meminfo;touch,150;wait,deflated;touch,420;meminfo" \
    --console --memory 512M --budget 640M --balloon reporting=off
wait_line 'EBB: waiting for inflated' 150
before=$(resident_kib $ebb_pid)
ask balloon 256M
grep -q '^256 MiB in the balloon' $work/answer || fail "the balloon is not full"
fallen "resident memory of ebb" "$before" "$(resident_kib $ebb_pid)" 262144 95
at_least "bytes in the balloon, as mm counts" "$(show free balloon_bytes)" $((255 << 20))
calls=$(show balloon drop_calls)
echo "65,536 pages left by $calls calls"
at_most "calls" "$calls" 8192
tell inflated
wait_line 'EBB: waiting for deflated' 60
ask balloon 0
grep -q '^0 bytes in the balloon' $work/answer || fail "the balloon is not empty"
same "bytes in the balloon" "$(show free balloon_bytes)" 0
tell deflated
done_linux 100
