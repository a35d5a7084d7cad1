# SPDX-License-Identifier: Apache-2.0
# limit: 1200
# cpus: 3
#
# Two vCPUs on two nodes. Each fills a half of the pages and then works on the other one's half, so all that it
# uses is on the wrong node: it becomes local.
. "${LAB:-/lab}/steps/lib.sh"

two="--cpus 2 --memory 128M --budget 200M --node-budget 0=100M --node-budget 1=100M --numa-balancing on --sample 0"

# start PAGES WORD...: until so many pages are filled
start() {
    filled=$1
    shift
    start_ebb $two --json $work/out.json "$@"
    wait_line '^ebbguest' 60
    until look_numa && [ $((on0 + on1)) -ge $filled ]; do
        sleep 0.2
    done
}

stop() {
    kill $ebb_pid
    wait_ebb 60
    same "the exit code" $code 0
}

# exchange MIB TOUCHES WORD...: each vCPU works on what the other has filled; of TOUCHES after that, 95% are local, less one
exchange() {
    mib=$1 touches=$2
    shift 2
    start $((mib * 256)) "$@" --workload "fill:${mib}M;stream:${mib}M,turn=1,passes=1000000,write=10"
    echo "${*:-with 2 MiB}: filled: $on0 pages on node 0, $on1 on node 1"
    at_least "pages that the first one filled on its node" $on0 $((filled / 2 - 512))
    at_least "pages that the other one filled on its node" $on1 $((filled / 2 - 512))
    while [ $((numa_pages_migrated * 100)) -lt $((filled * 95)) ]; do
        at_most "pages armed: ten scans of all there is" $numa_pte_updates $((10 * (on0 + on1)))
        sleep 1
        look_numa
    done
    echo "${*:-with 2 MiB}: $numa_pages_migrated pages moved after $numa_pte_updates were armed and $numa_hint_faults touches seen;" \
        "$on0 pages on node 0, $on1 on node 1, $pgmigrate_fail could not move"
    # what was under way comes to its end; then what is touched is local. A few pages of the guest's kernel are used by both
    sleep 5
    look_numa
    moved=$numa_pages_migrated touched=$numa_hint_faults local=$numa_hint_faults_local
    until [ $((numa_hint_faults - touched)) -ge $touches ]; do
        sleep 1
        look_numa
    done
    touched=$((numa_hint_faults - touched)) local=$((numa_hint_faults_local - local))
    echo "${*:-with 2 MiB}: $local of the next $touched touches were local, $((numa_pages_migrated - moved)) pages moved"
    at_most "touches of $touched that were not local: 5%, and one where they are few" $((touched - local)) $((touched / 20 + 1))
    at_most "pages moved once all is local" $((numa_pages_migrated - moved)) $((filled / 10))
    stop
}

exchange 8 30 --no-thp
exchange 64 100
