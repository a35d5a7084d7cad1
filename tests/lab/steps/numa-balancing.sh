# SPDX-License-Identifier: Apache-2.0
# limit: 900
#
# Pages that start on the wrong node follow the vCPU that uses them, and then stay. The vCPU runs on CPU 1, on node 1.
. "${LAB:-/lab}/steps/lib.sh"

filled=8192 # pages

for thp in "" --no-thp; do
    start_ebb --memory 64M --budget 160M --node-budget 0=80M --node-budget 1=80M $thp --json $work/out.json \
        --numa policy=preferred,node=0 --numa-balancing on --workload 'fill:32M;stream:32M,passes=100000,write=10'
    wait_line '^ebbguest' 20
    tries=0
    while look_numa && [ $((on0 + on1)) -lt $filled ]; do
        kill -0 $ebb_pid 2>/dev/null || { cat $work/ebb.log; fail "ebb has ended"; }
        sleep 0.2
    done
    echo "${thp:-with 2 MiB}: filled: $on0 pages on node 0, $on1 on node 1"
    while [ $((on1 * 100)) -lt $(((on0 + on1) * 95)) ]; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "$on1 of $((on0 + on1)) pages on node 1 after $tries looks"
        sleep 0.2
        look_numa
    done
    echo "${thp:-with 2 MiB}: $on0 pages on node 0, $on1 on node 1 after $numa_pte_updates pages were armed," \
        "$numa_hint_faults touches seen, $numa_pages_migrated pages moved, $pgmigrate_fail not"
    at_most "pages armed: ten scans of all there is" $numa_pte_updates $((10 * (on0 + on1)))
    # what was under way comes to its end; then there is nothing more to move
    sleep 6
    look_numa
    before=$numa_pages_migrated local=$numa_hint_faults_local
    # where nothing is to be moved, a pass begins up to 16 s after the last one; or later, when that one's few faults took
    # long on a busy machine and are to be paid for
    sleep 24
    look_numa
    while [ $numa_hint_faults_local -le $local ]; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || fail "nothing was touched since all became local"
        sleep 1
        look_numa
    done
    same "pages moved once all is local" $numa_pages_migrated $before
    kill $ebb_pid
    wait_ebb 20
    same "the exit code" $code 0
done

# And nothing is lost on the way.
start_ebb --memory 64M --budget 160M --node-budget 0=80M --node-budget 1=80M --json $work/out.json \
    --numa policy=preferred,node=0 --numa-balancing on \
    --workload 'fill:32M,pattern=mixed;idle:1500ms;zipf:32M,ops=4000,write=30;idle:1500ms;zipf:32M,ops=4000,write=30;verify'
wait_ebb 120
same "the exit code" $code 0
same "the result" "$(json $work/out.json result)" ok
same "bad pages" "$(json $work/out.json pages_bad)" 0
at_least "pages moved" "$(json $work/out.json numa_pages_migrated)" 1
