# SPDX-License-Identifier: Apache-2.0
#
# Sourced by each step. A step is sh of busybox, in /lab, with ebb and the test programs in the path. Its second line
# "# limit: SECONDS" is when it is killed. It ends with 0; fails with 1 after saying why; is skipped with 77.
set -u

work=/tmp/step.$$
mkdir -p $work
ebb_pid=
helpers= # processes to end with the step

# Whatever a step leaves behind would be the next one's trouble.
clean_up() {
    status=$?
    [ -z "$ebb_pid$helpers" ] || kill -9 $ebb_pid $helpers 2>/dev/null
    rm -rf $work
    exit $status
}
trap clean_up EXIT

fail() { # fail WHY...
    echo "failed: $*"
    exit 1
}

skip() { # skip WHY...
    echo "SKIP: $*"
    exit 77
}

# check WHAT COMMAND...: fails the step unless the command succeeds.
check() {
    what=$1
    shift
    "$@" || fail "$what"
}

# same WHAT FOUND EXPECTED
same() {
    [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"
}

# at_least WHAT FOUND LEAST, at_most WHAT FOUND MOST: whole numbers
at_least() {
    [ "$2" -ge "$3" ] || fail "$1 is $2, less than $3"
}

at_most() {
    [ "$2" -le "$3" ] || fail "$1 is $2, more than $3"
}

# run_program NAME: one of tests/vm; passes when its exit code and Check's own count say so. CK_RUN_CASE chooses a case.
run_program() {
    "$1" >"$work/out" 2>&1
    code=$?
    cat "$work/out"
    grep -q '^100%: Checks: [1-9][0-9]*, Failures: 0, Errors: 0$' "$work/out" || fail "$1 does not say that all passed"
    same "$1's exit code" $code 0
    ! grep -q '^SKIP:' "$work/out" || fail "$1 skipped what the lab is there for"
}

# json FILE KEY: the number or the text that comes first under this key; nothing when it is not there.
json() {
    sed -n "s/^.*\"$2\": *\"\{0,1\}\([^\",}]*\).*$/\1/p" "$1" | head -1
}

# start_ebb WORD...: `ebb run WORD...` in the background; $ebb_pid, output in $work/ebb.log, API at $work/ebb.sock.
# What the step writes to descriptor 9 is the guests' console input.
start_ebb() {
    rm -f "$work/ebb.in"
    mkfifo "$work/ebb.in"
    : >"$work/ebb.log" # the child empties it later than we may look for a line, which the last ebb may have said, too
    ebb run --api "$work/ebb.sock" "$@" <"$work/ebb.in" >"$work/ebb.log" 2>&1 &
    ebb_pid=$!
    exec 9>"$work/ebb.in"
}

# threads_of PID: what each does, when something does not come.
threads_of() {
    for task in /proc/"$1"/task/*; do
        echo "$(cat "$task/comm"): $(awk '/^State|ctxt/ { printf "%s ", $2 }' "$task/status") $(cat "$task/wchan")"
    done
}

# wait_line PATTERN SECONDS [FILE]: until a line of ebb's output matches; fails the step with the output's end.
wait_line() {
    file=${3:-$work/ebb.log}
    until_tenths=$(($2 * 10))
    until grep -qE "$1" "$file" 2>/dev/null; do
        until_tenths=$((until_tenths - 1))
        if [ $until_tenths -le 0 ]; then
            tail -n 40 "$file"
            [ "$file" != "$work/ebb.log" ] || threads_of "$ebb_pid"
            fail "no line '$1' within $2 s"
        fi
        if [ "$file" = "$work/ebb.log" ] && ! kill -0 "$ebb_pid" 2>/dev/null && ! grep -qE "$1" "$file"; then
            tail -n 40 "$file"
            fail "ebb has ended without a line '$1'"
        fi
        sleep 0.1
    done
}

# wait_ebb SECONDS: for its end; its exit code in $code.
wait_ebb() {
    left=$(($1 * 10))
    while kill -0 "$ebb_pid" 2>/dev/null; do
        left=$((left - 1))
        if [ $left -le 0 ]; then
            tail -n 40 "$work/ebb.log"
            threads_of "$ebb_pid"
            fail "ebb has not ended within $1 s"
        fi
        sleep 0.1
    done
    wait "$ebb_pid"
    code=$?
    ebb_pid=
    exec 9>&-
}

# show VIEW KEY: a number of `ebb show VIEW --json` of the running ebb.
show() {
    ebb show "$1" --json --api "$work/ebb.sock" >"$work/show.json" || fail "ebb show $1"
    json "$work/show.json" "$2"
}

# look_numa: what `ebb show numa` says of the running ebb: the counters, each in the variable of its name, and pages by
# node in $on0 $on1 $on2.
look_numa() {
    kill -0 $ebb_pid 2>/dev/null || { cat $work/ebb.log; fail "ebb has ended"; }
    ebb show numa --json --api $work/ebb.sock >$work/numa.json || fail "ebb show numa"
    for counter in numa_pte_updates numa_hint_faults numa_hint_faults_local numa_pages_migrated pgmigrate_fail; do
        eval "$counter=$(json $work/numa.json $counter)"
    done
    read -r on0 on1 on2 <<END
$(awk '/"pages_by_node"/ { here = 1 }
       here && /"node":/ { gsub(/[^0-9]/, ""); node = $0 }
       here && /"pages":/ { gsub(/[^0-9]/, ""); pages[node] += $0 }
       END { print pages[0] + 0, pages[1] + 0, pages[2] + 0 }' $work/numa.json)
END
}

# resident_kib PID: what the process has in memory.
resident_kib() {
    awk '/^VmRSS:/ { print $2 }' "/proc/$1/status"
}

# make_disk FILE MIB: an image with an empty file system.
make_disk() {
    truncate -s "$2M" "$1"
    mke2fs -F "$1" >/dev/null || fail "no file system on $1"
}

# --- Linux guests ---------------------------------------------------------------------------------------

guest=${GUEST:-/tmp/guest} # vmlinux, vmlinuz and guest.cpio
# noxsave: QEMU's software CPU lets a nested guest write XCR0 past KVM, and the guest's kernel complains at length.
guest_words="noxsave mitigations=off random.trust_cpu=on nokaslr reboot=k panic=-1 8250.nr_uarts=1"
guest_words="$guest_words initcall_blacklist=jent_mod_init,load_system_certificate_list"

# start_linux WORKLOADS WORD...: `ebb run` of Debian's kernel with our init, in the background. With --console among the
# words its console is on descriptor 9.
start_linux() {
    workloads=$1
    shift
    start_ebb --kernel "$guest/vmlinux" --initrd "$guest/guest.cpio" --cmdline "$guest_words ebb.run=$workloads" "$@"
}

# tell TOKEN: a guest that is at `wait,TOKEN` goes on.
tell() {
    echo "$1" >&9
}

# ask WORD...: another ebb command to the one that runs; its output in $work/answer.
ask() {
    command=$1
    shift
    ebb "$command" --api "$work/ebb.sock" "$@" >"$work/answer" 2>&1 || {
        cat "$work/answer"
        fail "ebb $command $*"
    }
    cat "$work/answer"
}

# done_linux SECONDS: the guest comes to its end, and nothing of it failed.
done_linux() {
    wait_ebb "$1"
    grep 'EBB:' "$work/ebb.log"
    [ "$code" = 0 ] || grep -v 'EBB:' "$work/ebb.log" | tail -n 60
    same "exit code" "$code" 0
    grep -q 'EBB: done' "$work/ebb.log" || fail "the guest did not come to its end"
    ! grep -q 'EBB: .* failed' "$work/ebb.log" || fail "a workload failed"
}

# mib BYTES
mib() {
    echo $(($1 >> 20))
}

# fallen NAME BEFORE AFTER OF PERCENT: in KiB, at least PERCENT of OF came free.
fallen() {
    echo "$1: $(($2 >> 10)) MiB before, $(($3 >> 10)) MiB after"
    at_least "$1 that came free, in KiB" $(($2 - $3)) $(($4 * $5 / 100))
}
