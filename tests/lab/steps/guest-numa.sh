# SPDX-License-Identifier: Apache-2.0
# limit: 400
#
# A Linux guest finds the nodes that it was given: numactl -H says how many, which vCPUs and memory they have and how far
# they are; HMAT says how fast they are. Memory that is plugged comes to the node that it is for. A node may have memory
# only, and lie on both sides of the hole below 4 GiB. The embedded guest has its own zones for each node.
. "${LAB:-/lab}/steps/lib.sh"

says() { # says PATTERN: a line of the guest's console.
    tr -d '\r' <$work/ebb.log | grep -qE "$1" || fail "no line '$1' on the console"
}

# node_mib NODE LEAST MOST: the size that numactl says. The kernel keeps some for itself, 64 MiB below 4 GiB
# among it for devices that reach no further.
node_mib() {
    mib=$(tr -d '\r' <$work/ebb.log | sed -n "s/^node $1 size: \([0-9]*\) MB\$/\1/p" | head -1)
    at_least "size of node $1 in MiB" "${mib:-0}" "$2"
    at_most "size of node $1 in MiB" "$mib" "$3"
}

# What the guest's kernel would say of nodes and processors that contradict each other.
no_complaint() {
    ! grep -E 'not on the same node|NUMA turned off|SRAT not used|SLIT table looks invalid|(hmat|HMAT): .*(nvalid|nexpected|missing|gnoring|ailed)|Faking a node|BUG: |WARNING: CPU' \
        $work/ebb.log || fail "the guest's kernel complains"
}

echo "--- two nodes, one vCPU each"
guest_words="$guest_words memhp_default_state=online_movable"
start_linux "boot;numactl;numa;wait,plugged;numa,1,448;fill,60;verify" --console --memory 768M --cpus 2 \
    --guest-numa node=0,cpus=0,memory=320M --guest-numa node=1,cpus=1,memory=448M --guest-distance 0,1,25 \
    --hotplug-memory 256M,node=1
wait_line 'EBB: waiting for plugged' 200
cat $work/ebb.log | grep -E 'SRAT|SLIT|HMAT|NUMA|EBB: numa|^node|available'
says '^EBB: boot ok cpus=2 '
says '^available: 2 nodes \(0-1\)$'
says '^node 0 cpus: 0$'
says '^node 1 cpus: 1$'
node_mib 0 240 320
node_mib 1 350 448
says '^node distances:$'
says '^ +0: +10 +25 *$'
says '^ +1: +25 +10 *$'
for node in 0 1; do
    says "^EBB: numa node=$node access0 from=$node read_latency=100 write_latency=100 read_bandwidth=10000 write_bandwidth=10000\$"
done
no_complaint
before=$(sed -n 's/^EBB: numa node=1 memory_kib=//p' $work/ebb.log | tr -d '\r' | tail -1)
ask mem 128M
tell plugged
done_linux 100
after=$(sed -n 's/^EBB: numa node=1 memory_kib=//p' $work/ebb.log | tr -d '\r' | tail -1)
same "KiB that node 1 has more" $((after - before)) $((128 << 10))

echo "--- three nodes, one of memory only that lies across the hole"
start_linux "boot;numactl;numa;wait,seen" --console --memory 3328M --budget 512M --zram 64M --cpus 2 --guest-distance 0,2,40 \
    --guest-numa node=2,memory=512M --guest-numa node=1,cpus=0,memory=2560M --guest-numa node=0,cpus=1,memory=256M \
    --guest-distance 1,2,30
# What the kernel says when it powers off may stand in the middle of a line that is still on its way.
wait_line 'EBB: waiting for seen' 200
tell seen
done_linux 60
cat $work/ebb.log | grep -E 'SRAT|SLIT|HMAT|NUMA|EBB: numa|^node|available'
says '^available: 3 nodes \(0-2\)$'
says '^node 0 cpus: 1$'
says '^node 1 cpus: 0$'
says '^node 2 cpus: *$'
node_mib 0 100 256
node_mib 1 2400 2560
node_mib 2 400 512
says '^ +0: +10 +20 +40 *$'
says '^ +1: +20 +10 +30 *$'
says '^ +2: +40 +30 +10 *$'
# The ways to node 2: 40 from node 0, 30 from node 1, which is the nearest.
says '^EBB: numa node=2 access0 from=1 read_latency=300 write_latency=300 read_bandwidth=3333 write_bandwidth=3333$'
same "memory entries of the SRAT" "$(grep -c 'SRAT: Node' $work/ebb.log)" 4
no_complaint

echo "--- the embedded guest"
ebb run --memory 64M --cpus 2 --api none --guest-numa node=0,cpus=0,memory=32M --guest-numa node=1,cpus=1,memory=32M \
    --workload "fill:20M;verify" >$work/ebb.log 2>&1 || fail "ebb run: $(tail -n 5 $work/ebb.log)"
grep -E '^node|^zone' $work/ebb.log
says '^node 0: vCPUs 0x1, 32 MiB'
says '^node 1: 5632 pages free' # 32 MiB less vCPU 1's half of what is filled
