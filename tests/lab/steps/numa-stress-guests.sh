# SPDX-License-Identifier: Apache-2.0
# limit: 1500
# cpus: 3
#
# A guest with vCPUs on two nodes writes to all its memory and verifies it while pages move between three nodes, up and
# down the tiers, to zram and to swap, in 2 MiB and in single pages.
. "${LAB:-/lab}/steps/lib.sh"

# stress MIB WORD...: a guest comes to its end, and every page was right. What happened is in $work/out.json
stress() {
    mib=$1
    shift
    start_ebb --cpus 2 --memory 96M --numa-balancing on --json $work/out.json "$@"
    wait_ebb 400
    [ "$code" = 0 ] || tail -n 40 $work/ebb.log
    same "the exit code" "$code" 0
    same "the result" "$(json $work/out.json result)" ok
    same "bad pages" "$(json $work/out.json pages_bad)" 0
    at_least "verified pages" "$(json $work/out.json pages_verified)" $((mib * 256))
}

# happened LEAST COUNTER...
happened() {
    least=$1
    shift
    for counter; do
        number=$(json $work/out.json $counter)
        echo "  $counter $number"
        at_least "$counter" "$number" $least
    done
}

demoted() {
    number=$(($(json $work/out.json pgdemote_kswapd) + $(json $work/out.json pgdemote_direct)))
    echo "  demoted $number"
    at_least "pages demoted" $number 1000
}

for thp in --no-thp ""; do
    # from the node without a CPU to those of the vCPUs, then to each other's, then to whoever is the first
    echo "room for all, ${thp:-2 MiB}"
    mib=16 passes=15000
    [ -z "$thp" ] || mib=4 passes=60000
    stress $mib $thp --budget 240M --node-budget 0=80M --node-budget 1=80M --node-budget 2=80M --numa policy=preferred,node=2 \
        --workload "fill:${mib}M,pattern=mixed;stream,passes=$passes,write=2;stream,turn=1,passes=$passes,write=2;zipf,ops=400000,theta=0,write=30;verify"
    happened $((mib * 32)) numa_pages_migrated pgmigrate_success
    if [ -z "$thp" ]; then
        happened 1 thp_fault_alloc
        same "2 MiB frames that came apart, so that pages would move singly" "$(json $work/out.json thp_split_page)" 0
    fi

    echo "a small fast tier, ${thp:-2 MiB}"
    stress 48 $thp --budget 96M --tiers fast=0-1,slow=2 --node-budget 0=12M --node-budget 1=12M --node-budget 2=72M \
        --zram 8M --workload "fill:48M,pattern=mixed;zipf:48M,ops=8000000,write=30,order=linear;verify"
    happened 1 pgpromote_success
    demoted

    echo "room for half, ${thp:-2 MiB}"
    stress 72 $thp --budget 48M --tiers fast=0-1,slow=2 --node-budget 0=16M --node-budget 1=16M --node-budget 2=16M \
        --zram 8M --swap $work/swap,size=128M \
        --workload 'fill:72M,pattern=mixed;zipf:72M,ops=60000,write=50,order=linear;stream:72M,turn=1,passes=2,write=50;churn:72M,ops=200;zipf:72M,ops=60000,write=50,order=linear;verify'
    [ -n "$thp" ] || happened 1 thp_fault_alloc thp_split_page
    happened 1000 pgmigrate_success zswpout zswpin pswpout
    happened 100 pswpin
    demoted
done
