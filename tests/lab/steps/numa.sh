# SPDX-License-Identifier: Apache-2.0
# limit: 400
#
# Placement on the lab's three nodes: where frames are by the policies of `ebb run --numa`, as `ebb show numa` and the
# kernel's own numa_maps tell. CPU 1, on which everything here runs, is on node 1; node 2 has no CPU.
. "${LAB:-/lab}/steps/lib.sh"

# The tests of host memory, here with three real nodes.
run_program test_hostmem_node
run_program test_memhost_numa

# shown: pages of the VM on nodes 0, 1 and 2, as Ebb counts them.
shown() {
    ebb show numa --json --api $work/ebb.sock >$work/numa.json || fail "ebb show numa"
    awk '/"pages_by_node"/ { here = 1 }
         here && /"node":/ { gsub(/[^0-9]/, ""); node = $0 }
         here && /"pages":/ { gsub(/[^0-9]/, ""); pages[node] += $0 }
         END { print pages[0] + 0, pages[1] + 0, pages[2] + 0 }' $work/numa.json
}

# mapped: the same for the guest's range, the largest without a policy of its own, as the kernel counts them. Parts of
# the arena have one: a page that is not where it says is told on a line of its own. Nothing where no such range has
# 1,000 pages.
mapped() {
    awk '{ split("0 0 0", n, " "); anon = 0; bound = -1
           for (i = 2; i <= NF; i++) {
               split($i, part, "=")
               if ($i ~ /^bind=static:/) { sub(/.*:/, "", $i); bound = $i }
               if (part[1] == "anon") anon = part[2]
               if (part[1] ~ /^N[0-9]+$/) { node = substr(part[1], 2); n[node + 1] = part[2] }
           }
           if (bound >= 0) { for (k = 0; k < 3; k++) if (k != bound && n[k + 1] > 0) print "STRAY", $0; next }
           if (anon > most) { most = anon; all = n[1] + 0 " " n[2] + 0 " " n[3] + 0 }
         } END { if (most >= 1000) print all }' /proc/$ebb_pid/numa_maps
}

# run_policy WORD...: a guest that has filled 48 MiB and stands still, unsampled, so all of that stays in it; its pages by
# node in $on0 $on1 $on2.
run_policy() {
    start_ebb --sample 0 --memory 64M --workload 'fill:48M;idle:300s' "$@"
    wait_line '^ebbguest' 20
    until [ "$(show free resident_bytes)" -ge 50331648 ]; do
        kill -0 $ebb_pid 2>/dev/null || { cat $work/ebb.log; fail "ebb $* has ended"; }
        sleep 0.2
    done
    sleep 1
    by_ebb=$(shown)
    by_kernel=$(mapped)
    echo "$*: pages on the nodes $by_ebb"
    same "the kernel's count with $*" "$by_kernel" "$by_ebb"
    read -r on0 on1 on2 <<END
$by_ebb
END
    at_least "pages that are there" $((on0 + on1 + on2)) 12288
    kill $ebb_pid
    wait_ebb 20
    same "the exit code with $*" $code 0
}

for transport in move copy; do
    run_policy --budget 80M --transport $transport --numa policy=bind,nodes=0
    same "pages beside node 0" $((on1 + on2)) 0
    run_policy --budget 80M --transport $transport --numa policy=bind,nodes=2
    same "pages beside node 2" $((on0 + on1)) 0
    run_policy --budget 80M --transport $transport --numa policy=bind,nodes=0+2
    same "pages on node 1" $on1 0
done

# 12,288 pages and a few: equal to 1% by page, and but for one block of 512 where blocks are the unit
run_policy --budget 96M --numa policy=interleave,nodes=0-2,unit=4K
for on in $on0 $on1 $on2; do
    at_most "a part of three, times 300" $((on * 300)) $(((on0 + on1 + on2) * 101))
    at_least "a part of three, times 300" $((on * 300)) $(((on0 + on1 + on2) * 99))
done
run_policy --budget 96M --numa policy=interleave,nodes=0-2
for on in $on0 $on1 $on2; do
    at_most "the largest part" $on $(((on0 + on1 + on2) / 3 + 512))
    at_least "the smallest part" $on $(((on0 + on1 + on2) / 3 - 512))
done

run_policy --budget 80M --numa policy=preferred,node=2
same "pages beside node 2" $((on0 + on1)) 0
run_policy --budget 80M --numa policy=preferred,node=2 --node-budget 2=24M
at_least "pages on node 2" $on2 5000
at_most "pages on node 2" $on2 6144
at_least "pages that had to go elsewhere" $((on0 + on1)) 6000
grep -q '"numa_foreign": [1-9]' $work/numa.json || fail "no page is counted as foreign"

# Node 0 is 20 from node 1, node 2 is 40: it is used last.
run_policy --budget 96M --numa policy=preferred,node=1 --node-budget 0=40M --node-budget 1=24M --node-budget 2=32M
at_least "pages on node 1" $on1 5000
at_least "pages on node 0, which is nearer" $on0 6000
same "pages on node 2" $on2 0

# All CPUs that may be used are on node 1: what they touch is there.
run_policy --budget 80M --numa policy=local
same "pages beside node 1" $((on0 + on2)) 0
run_policy --budget 240M --numa policy=local,nodes=0-2
same "pages beside node 1" $((on0 + on2)) 0
grep -q '"local_node": 1[0-9]*,' $work/numa.json || fail "no touch is counted as local"

# Nodes of the guest that stand for nodes of the host: each part of its memory is there.
run_policy --budget 80M --guest-numa node=0,cpus=0,memory=32M,host=0 --guest-numa node=1,memory=32M,host=2
same "pages on node 1" $on1 0
for on in $on0 $on2; do
    at_least "pages of a guest node" $on 4096
    at_most "pages of a guest node" $on 8192
done

# A node that is full reclaims from itself: bound is bound, while pages come and go.
start_ebb --memory 64M --budget 20M --zram 8M --swap $work/swap,size=64M --json $work/out.json \
    --numa policy=bind,nodes=2 --workload 'fill:32M,pattern=mixed;zipf:32M,ops=2000,write=30;verify'
rounds=0
while kill -0 $ebb_pid 2>/dev/null; do
    by_kernel=$(mapped 2>/dev/null)
    case $by_kernel in
    "") ;;
    "0 0 "*) rounds=$((rounds + 1)) ;;
    *) fail "not on node 2, to which all is bound: $by_kernel" ;;
    esac
    sleep 0.3
done
wait_ebb 5
same "the exit code, bound and full" $code 0
same "the result, bound and full" "$(json $work/out.json result)" ok
same "bad pages" "$(json $work/out.json pages_bad)" 0
at_least "looks at where the pages were" $rounds 3
at_least "pages reclaimed" "$(json $work/out.json pswpout)" 1

# One that is full where nothing can be stored is not helped by the room of others: the VM ends, and is told which one.
start_ebb --memory 64M --budget 120M --node-budget 1=80M --node-budget 2=40M \
    --guest-numa node=0,cpus=0,memory=16M,host=1 --guest-numa node=1,memory=48M,host=2 --workload 'fill:56M'
wait_ebb 60
same "the exit code of a node without a store" $code 1
grep '^ebb: ' $work/ebb.log
grep -q '^ebb: vm0: out of memory: budget 40 MiB on node 2 is full.*--node-budget' $work/ebb.log || fail "what is full is not said"

# What cannot be: one line, exit code 2.
refused() { # refused WHAT WORD...
    what=$1
    shift
    ebb run "$@" >$work/refused 2>&1
    same "the exit code of $*" $? 2
    same "lines of $*" "$(wc -l <$work/refused)" 1
    cat $work/refused
    grep -q "$what" $work/refused || fail "$* does not say '$what'"
}
refused 'no node 3' --numa policy=bind,nodes=3
refused 'free' --numa policy=bind,nodes=2 --memory 2G --budget 2G
refused 'must be equal' --budget 64M --node-budget 0=16M --node-budget 1=16M
refused 'sum up' --budget 64M --numa policy=bind,nodes=0-1 --node-budget 0=65M
refused 'no node 4' --memory 64M --guest-numa node=0,cpus=0,memory=64M,host=4
refused 'not among' --memory 64M --guest-numa node=0,cpus=0,memory=64M,host=1 --numa policy=bind,nodes=0
refused 'no node 7' --tiers fast=0,slow=7
