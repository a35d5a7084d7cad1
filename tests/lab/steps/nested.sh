# SPDX-License-Identifier: Apache-2.0
# limit: 60
#
# The lab is what it claims to be: KVM with nested paging, three nodes, moves by userfaultfd.
. /lab/steps/lib.sh

for parameter in npt nested; do
    file=/sys/module/kvm_amd/parameters/$parameter
    case $(cat $file) in [Y1]) ;; *) fail "kvm_amd has $parameter=$(cat $file)" ;; esac
done
same "the TDP MMU" "$(cat /sys/module/kvm/parameters/tdp_mmu)" Y
for node in 0 1 2; do
    kib=$(awk '/MemTotal/ { print $4 }' /sys/devices/system/node/node$node/meminfo)
    at_least "node $node's memory in KiB" "$kib" 900000
done
same "node 0's distances" "$(cat /sys/devices/system/node/node0/distance)" "10 20 40"
grep -q zram /proc/swaps || fail "no swap on zram"
same KSM "$(cat /sys/kernel/mm/ksm/run)" 1
ebb run --memory 32M --workload "fill:4M;verify" --transport move --quiet --json $work/out.json || fail "ebb run"
same "the transport" "$(json $work/out.json transport)" move
