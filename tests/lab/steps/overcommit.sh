# SPDX-License-Identifier: Apache-2.0
# limit: 2400
#
# Four Linux guests of 256 MiB in a budget of 384 MiB. Each runs Debian's memtester over most of its memory, and sums over a
# file tree on its own disk before and after. No error, no OOM in a guest, and the budget holds.
#
# Four guests share one software CPU: 26 minutes on a busy machine.
. "${LAB:-/lab}/steps/lib.sh"

for vm in 0 1 2 3; do
    make_disk $work/disk$vm.img 64
done
# Of memtester's tests the first two: all of them take hours on a software CPU.
start_linux "boot;disk-sum,vda;memtester,150,1,0x3;disk-sum,vda;meminfo" \
    --vms 4 --memory 256M --budget 384M --zram 192M --swap $work/swap,size=1G --disk $work/disk%d.img --json $work/out.json
most=0 seen=0
while kill -0 $ebb_pid 2>/dev/null; do
    now=$(resident_kib $ebb_pid 2>/dev/null)
    [ "${now:-0}" -le $most ] || most=$now
    # what the guests say, as it comes: the log of a step that is killed ends with it
    lines=$(wc -l <$work/ebb.log)
    sed -n "$((seen + 1)),${lines}p" $work/ebb.log | grep 'EBB:'
    seen=$lines
    sleep 1
done
done_linux 5
echo "resident at most $((most / 1024)) MiB"
at_most "resident memory in KiB" "$most" $(((384 + 24 + 4) * 1024))
at_most "the kernel's own peak" "$(json $work/out.json peak_resident_bytes)" $(((384 + 24 + 4) << 20))
same "guests that ran memtester" "$(grep -c 'EBB: memtester ok' $work/ebb.log)" 4
same "file trees that were right" "$(grep -c 'EBB: disk-sum ok' $work/ebb.log)" 8
same "guests without an OOM" "$(grep -c 'oom_kills=0' $work/ebb.log)" 4
at_least "pages swapped out" "$(json $work/out.json pswpout)" 1
