# SPDX-License-Identifier: Apache-2.0
# limit: 300
#
# A guest fills 300 MiB and frees it. Within 5 s the host has at least 90% of it back, without any command.
. "${LAB:-/lab}/steps/lib.sh"

# Linux since 6.7 keeps up to an eighth of the memory that was freed on lists of its CPUs for some seconds, where
# reporting does not look: 87% came back within 5 s. So these lists are kept short.
guest_words="$guest_words sysctl.vm.percpu_pagelist_high_fraction=1024"
start_linux "boot;fill,300;wait,free;free;wait,use;fill,300;verify" --console --memory 512M --budget 640M
wait_line 'EBB: waiting for free' 200
before=$(resident_kib $ebb_pid)
tell free
wait_line 'EBB: free ok' 20
tenths=0
until [ $((before - $(resident_kib $ebb_pid))) -ge $((300 * 1024 * 90 / 100)) ]; do
    tenths=$((tenths + 1))
    [ $tenths -le 50 ] || break
    sleep 0.1
done
fallen "resident memory of ebb, after $((tenths / 10)).$((tenths % 10)) s" "$before" "$(resident_kib $ebb_pid)" 307200 90
tell use
done_linux 100
