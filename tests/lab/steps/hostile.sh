# SPDX-License-Identifier: Apache-2.0
# limit: 200
#
# The embedded guest's hostile driver on nested paging: devices ask for a reset, Ebb lives, the guest's pages are right.
. /lab/steps/lib.sh

ebb run --memory 64M --cpus 2 --budget 40M --zram 8M --swap $work/swap,size=64M --balloon \
    --workload "fill:24M;hostile,ops=1500;verify" --json $work/out.json >$work/log 2>&1
code=$?
cat $work/log
same "exit code" $code 0
same "bad pages" "$(json $work/out.json pages_bad)" 0
grep -q 'asked for a reset [1-9]' $work/log || fail "no device ever asked for a reset"
