# SPDX-License-Identifier: Apache-2.0
# limit: 500
#
# What is in use, and in which pieces memory is, on the lab's three nodes: idle ages and the heat map, blocks of 2 MiB that
# go cold by half, a checkerboard of free frames that is compacted, and compaction by hand.
. "${LAB:-/lab}/steps/lib.sh"

event() {
    show vmstat "$1"
}

# Bytes that were not touched for eight seconds.
idle_8s() {
    show idle vms >/dev/null
    awk '/"seconds": 8,/ { getline; gsub(/[^0-9]/, ""); print; exit }' $work/show.json
}

# 40 MiB filled, 8 of them in use: 32 MiB are idle.
start_ebb --memory 64M --budget 96M --numa policy=interleave,nodes=0-2 --workload 'fill:40M;zipf:8M,ops=1000000000,theta=0'
wait_line '^ebbguest' 20
tries=0
until [ "$(idle_8s)" -ge $((28 << 20)) ]; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || { ask show idle; fail "memory that nobody touches does not count as idle"; }
    sleep 1
done
ask show idle
at_most "bytes that count as idle" "$(idle_8s)" $((34 << 20))
ask heatmap --png $work/heat.png
same "the first bytes of the picture" "$(head -c 4 $work/heat.png | tail -c 3)" PNG
kill $ebb_pid
wait_ebb 20
same "the exit code" $code 0

# Of each block of 2 MiB one half is in use: the frames are split, the cold halves leave, the hot ones fault no more.
start_ebb --memory 64M --budget 30M --zram 30M --numa policy=bind,nodes=2 \
    --workload 'fill:40M,pattern=same;stream:40M,take=1M,skip=1M,passes=1000000'
wait_line '^ebbguest' 20
tries=0
until [ "$(event zswpout)" -ge 4000 ] && [ "$(event pgmajfault)" = "${faults:-}" ]; do
    faults=$(event pgmajfault)
    tries=$((tries + 1))
    [ $tries -lt 30 ] || fail "$(event zswpout) pages stored, $faults major faults and no end"
    sleep 3
done
echo "$(event thp_split_page) frames split, $(event zswpout) pages stored, $faults major faults and no more"
at_least "frames of 2 MiB that were split" "$(event thp_split_page)" 8
kill $ebb_pid
wait_ebb 20
same "the exit code" $code 0

# Rebuilding frames needs a kernel that frees page tables (Linux 6.14), which this machine's is not: see vm_guest_pages on the host.
CK_RUN_CASE=compaction run_program vm_guest_pages

# And by hand, on every node.
start_ebb --memory 64M --budget 96M --numa policy=interleave,nodes=0-2 --workload 'fill:40M;idle:60s'
wait_line '^ebbguest' 20
for view in pagetypeinfo extfrag; do
    ask show $view >$work/view
    for node in 0 1 2; do
        grep -q "^Node *$node, zone" $work/view || fail "ebb show $view says nothing of node $node"
    done
done
ask sysctl vm.compact_memory=1
at_least "pages looked at by compaction" "$(event compact_migrate_scanned)" 1
kill $ebb_pid
wait_ebb 20
same "the exit code" $code 0
