# SPDX-License-Identifier: Apache-2.0
# limit: 900
#
# SIGKILL at ten random moments while the guest writes and flushes numbered blocks: nothing is left behind, and the disk
# image holds all that the guest last flushed. Every other time past the host's page cache, with two queues.
. "${LAB:-/lab}/steps/lib.sh"

truncate -s 16M $work/disk.img
cp $work/disk.img $work/last.img
files_before=$(ls $work /run/ebb /dev/shm 2>/dev/null | sort)
flushed=0
for round in 1 2 3 4 5 6 7 8 9 10; do
    check="boot"
    [ "$flushed" = 0 ] || check="disk-check,vda,$flushed"
    how=""
    [ $((round % 2)) = 1 ] || how=,direct,queues=2
    start_linux "$check;disk-flush,vda,$((flushed + 1))" --memory 128M --budget 64M --zram 16M --swap $work/swap,size=128M \
        --disk $work/disk.img$how
    wait_line 'EBB: flushed [0-9]' 150
    sleep "$(awk "BEGIN { srand($$ + $round); printf \"%.2f\", rand() * 3 }")"
    kill -9 $ebb_pid
    wait $ebb_pid 2>/dev/null
    ebb_pid=
    exec 9>&-
    ! grep -q 'EBB: .* failed' $work/ebb.log || {
        grep EBB: $work/ebb.log
        fail "round $round: the disk does not hold what was flushed"
    }
    flushed=$(sed -n 's/^EBB: flushed \([0-9]*\).*/\1/p' $work/ebb.log | tail -1)
    echo "round $round: killed after block $flushed was flushed"
    rm -f $work/ebb.in $work/ebb.log $work/ebb.sock
    same "files that are there" "$(ls $work /run/ebb /dev/shm 2>/dev/null | sort)" "$files_before"
done
start_linux "disk-check,vda,$flushed" --memory 128M --disk $work/disk.img,readonly
done_linux 150
