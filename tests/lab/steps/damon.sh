# SPDX-License-Identifier: Apache-2.0
# limit: 200
#
# The kernel's own DAMON says what is in use: hot is told from cold, nothing is taken home for that, and at the end nothing
# of it is left.
. "${LAB:-/lab}/steps/lib.sh"

damon=/sys/kernel/mm/damon/admin/kdamonds
[ -d $damon ] || fail "this kernel has no DAMON: $damon"

# idle SECONDS: MiB of the first VM that were not touched for so long
idle() {
    show idle vms >/dev/null
    mib "$(tr -d ' \n' <$work/show.json | sed "s/.*\"vms\"://; s/.*\"idle\":\[//; s/\].*//; s/.*\"seconds\":$1,\"bytes\":\([0-9]*\).*/\1/")"
}

start_ebb --memory 128M --access damon --workload 'fill:96M;zipf:32M,ops=1000000000,theta=0.5,order=linear'
wait_line '^ebbguest' 20
tries=0
until [ "$(idle 16)" -ge 48 ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || break
    sleep 1
done
ask show idle
grep -q '^Accesses seen by damon' $work/answer || fail "who sees accesses is not damon"
# 64 MiB are filled and then left alone, 32 in use. DAMON looks at regions, not at pages.
at_least "MiB not touched for 16 s" "$(idle 16)" 48
at_most "MiB not touched for 16 s" "$(idle 16)" 72
same "pages taken home" "$(show vmstat pgdeactivate)" 0
kill $ebb_pid
wait_ebb 20
same "the exit code" $code 0
same "kdamonds that are left" "$(cat $damon/nr_kdamonds)" 0

# Two VMs, the second of which lies below the first in ebb's memory; killed, it leaves a DAMON that does not run.
start_ebb --vms 2 --memory 64M --access damon --workload 'fill:48M;idle:60s'
wait_line '^vm1: ebbguest' 30
ask show idle
grep -q '^Accesses seen by damon' $work/answer || fail "who sees accesses of two VMs is not damon"
kill -9 $ebb_pid
wait_ebb 20
same "kdamonds that are left" "$(cat $damon/nr_kdamonds)" 1
! ebb run --memory 64M --access damon --workload fill:8M >$work/left 2>&1 || fail "ebb ran with DAMON of another"
grep -q "echo 0 >$damon/nr_kdamonds" $work/left || fail "it did not say how to free it: $(cat $work/left)"
echo 0 >$damon/nr_kdamonds
same "kdamonds that are left" "$(cat $damon/nr_kdamonds)" 0
