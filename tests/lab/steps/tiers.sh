# SPDX-License-Identifier: Apache-2.0
# limit: 400
#
# A fast node that is too small and a slow one beside it: what is cold goes to the slow one before any store, what turns
# hot comes back, and every page is right.
. "${LAB:-/lab}/steps/lib.sh"

event() {
    show vmstat "$1"
}

two="--memory 96M --budget 120M --tiers fast=1,slow=2 --node-budget 1=24M --zram 16M"
start_ebb $two --workload 'fill:64M,pattern=mixed;zipf:64M,ops=1000000000,write=10,order=linear'
wait_line '^ebbguest' 20
tries=0
until [ "$(event pgpromote_success)" -ge 200 ]; do
    kill -0 $ebb_pid 2>/dev/null || { cat $work/ebb.log; fail "ebb has ended"; }
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "$(event pgpromote_success) pages promoted, $(event pgpromote_candidate) candidates"
    sleep 0.5
done
ask show tiers
demoted=$(($(event pgdemote_kswapd) + $(event pgdemote_direct)))
echo "demoted $demoted, promoted $(event pgpromote_success), stored in zram $(event zswpout)"
at_least "pages demoted" $demoted 1000
same "pages stored in zram while the slow node has room" "$(event zswpout)" 0
kill $ebb_pid
wait_ebb 20
same "the exit code" $code 0

# And nothing is lost on the way.
start_ebb $two --json $work/out.json \
    --workload 'fill:64M,pattern=mixed;zipf:64M,ops=500000,write=30,order=linear;verify'
wait_ebb 200
same "the exit code" $code 0
same "the result" "$(json $work/out.json result)" ok
same "bad pages" "$(json $work/out.json pages_bad)" 0
at_least "pages demoted" $(($(json $work/out.json pgdemote_kswapd) + $(json $work/out.json pgdemote_direct))) 1000

# Three of them, the last one full: what is coldest is stored.
start_ebb --memory 96M --budget 48M --tiers fast=1,slow=0,slower=2 --node-budget 0=16M --node-budget 1=16M --zram 8M \
    --swap $work/swap,size=128M --json $work/out.json \
    --workload 'fill:80M,pattern=mixed;zipf:80M,ops=20000,write=30;verify'
wait_ebb 200
same "the exit code" $code 0
same "the result" "$(json $work/out.json result)" ok
same "bad pages" "$(json $work/out.json pages_bad)" 0
at_least "pages demoted" $(($(json $work/out.json pgdemote_kswapd) + $(json $work/out.json pgdemote_direct))) 1000
at_least "pages written to swap" "$(json $work/out.json pswpout)" 1
