# SPDX-License-Identifier: Apache-2.0
# limit: 300
#
# Inflating 256 MiB of 512 gives at least 95% of it back to the host; deflated, the guest can use all of it. The guest does
# not report free pages by itself here, and 2 MiB leave by one call where the guest gives them up together. Its statistics
# come each second, with all their tags.
. "${LAB:-/lab}/steps/lib.sh"

start_linux "boot;touch,420;wait,inflated;meminfo;touch,150;wait,deflated;touch,420;meminfo" \
    --console --memory 512M --budget 640M --balloon reporting=off,stats=1
wait_line 'EBB: waiting for inflated' 150
before=$(resident_kib $ebb_pid)
ask balloon 256M
grep -q '^256 MiB in the balloon' $work/answer || fail "the balloon is not full"
fallen "resident memory of ebb" "$before" "$(resident_kib $ebb_pid)" 262144 95
at_least "bytes in the balloon, as mm counts" "$(show free balloon_bytes)" $((255 << 20))
calls=$(show balloon drop_calls)
echo "65,536 pages left by $calls calls"
at_most "calls" "$calls" 8192
for tag in swap_in_bytes swap_out_bytes major_faults minor_faults free_bytes total_bytes available_bytes disk_caches_bytes \
    hugetlb_allocations hugetlb_failures oom_kills alloc_stalls async_scan_bytes direct_scan_bytes async_reclaim_bytes \
    direct_reclaim_bytes; do
    [ -n "$(show balloon $tag)" ] || fail "no statistics of $tag"
done
at_most "bytes that the guest says are free with a full balloon" "$(show balloon free_bytes)" $((256 << 20))
updates=$(show balloon stats_updates)
sleep 3
at_least "statistics that came meanwhile" $(($(show balloon stats_updates) - updates)) 1
tell inflated
wait_line 'EBB: waiting for deflated' 60
ask balloon 0
grep -q '^0 bytes in the balloon' $work/answer || fail "the balloon is not empty"
same "bytes in the balloon" "$(show free balloon_bytes)" 0
tell deflated
done_linux 100
