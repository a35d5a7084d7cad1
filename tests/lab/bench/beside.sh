# SPDX-License-Identifier: Apache-2.0
# limit: 1500
#
# Ebb and Debian's QEMU, with the same guest, in turn: bench.pairs=N times each of two lives (beside.c). For a
# closer look: bench.lives=LIFE, bench.arms=ARM, bench.smaps=1. Each life is one
# line "BENCH: {...}" in build/lab/beside.log.
. "${LAB:-/lab}/steps/lib.sh"

[ -d /sys/kernel/debug/kvm ] || mount -t debugfs debug /sys/kernel/debug || fail "no debugfs"
[ -d /sys/kernel/tracing/events ] || mount -t tracefs trace /sys/kernel/tracing || fail "no tracefs"
export GUEST=$guest QEMU=${QEMU-/tmp/qemu} WORDS="$guest_words" WORK=$work
value() { # value KEY STANDARD: of the lab kernel's command line
    found=$(tr ' ' '\n' </proc/cmdline | sed -n "s/^bench.$1=//p" | tr ',' ' ')
    echo "${found:-$2}"
}

[ -z "$(value smaps '')" ] || export SMAPS=1
pair=0
while [ $pair -lt "$(value pairs 1)" ]; do
    pair=$((pair + 1))
    for life in $(value lives "reports balloon"); do
        for arm in $(value arms "ebb qemu"); do
            echo "--- pair $pair: $life, $arm"
            rm -f $work/api $work/qmp
            # The host's memory is as it was at the first: what the one before left in caches goes.
            echo 3 >/proc/sys/vm/drop_caches
            cat $guest/vm* $guest/guest.cpio $QEMU/*/* >/dev/null
            $QEMU/bin/beside $arm $life || {
                cat $work/vmm.log
                fail "$life with $arm"
            }
        done
    done
done
