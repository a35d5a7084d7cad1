# SPDX-License-Identifier: Apache-2.0
# limit: 200
#
# `ebb run` with the embedded guest on nested paging: more memory than the budget, out to zram and swap, back, verified.
. /lab/steps/lib.sh

for transport in move copy; do
    ebb run --memory 64M --budget 20M --zram 8M --swap $work/demo.swap,size=64M --transport $transport --quiet \
        --workload 'fill:32M,pattern=mixed;zipf:32M,ops=2000,write=30;verify' --json $work/out.json >$work/log 2>&1
    code=$?
    cat $work/log
    same "exit code with $transport" $code 0
    same "the result with $transport" "$(json $work/out.json result)" ok
    same "the transport" "$(json $work/out.json transport)" $transport
    same "bad pages" "$(json $work/out.json pages_bad)" 0
    at_least "verified pages" "$(json $work/out.json pages_verified)" 8192
    at_least "pages swapped out" "$(json $work/out.json pswpout)" 1
    echo "$transport: $(json $work/out.json pgfault) faults, $(json $work/out.json pgmajfault) major"
done
