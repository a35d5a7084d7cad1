# SPDX-License-Identifier: Apache-2.0
# limit: 600
#
# Debian's kernel boots to our init with 1 and 2 vCPUs and 128 MiB to 6 GiB of memory, by PVH and by the 64-bit entry,
# finds its devices, and ends in each way a guest can.
. "${LAB:-/lab}/steps/lib.sh"

# boot NAME WORKLOADS WORD...: runs a guest to its end; its output in $work/out, the report in $work/out.json, $code.
boot() {
    name=$1 workloads=$2
    shift 2
    echo "--- $name"
    ebb run --kernel "$guest/vmlinux" --initrd "$guest/guest.cpio" --cmdline "$guest_words ebb.run=$workloads" --api none \
        --json $work/out.json "$@" >$work/out 2>&1
    code=$?
    tail -n 60 $work/out
}

says() { # says PATTERN
    grep -qE "$1" $work/out || fail "$name: the output has no '$1'"
}

for cpus in 1 2; do
    boot "$cpus vCPUs, 128 MiB" "boot;rng" --memory 128M --cpus $cpus
    same "exit code" $code 0
    same "result" "$(json $work/out.json result)" ok
    says "^EBB: boot ok cpus=$cpus "
    says '^EBB: done'
    says "the guest powered off"
    at_least "time to init in ns" "$(json $work/out.json boot_ns)" 1
done

# What memory there is and how it is cut: the hole below 4 GiB, the rest above. The budget is far below.
boot "6 GiB in 512 MiB" boot --memory 6G --cpus 2 --budget 512M --zram 128M --kernel "$guest/vmlinuz"
same "exit code" $code 0
says '^EBB: boot ok cpus=2 '
at_least "KiB that the guest sees" "$(sed -n 's/^EBB: boot ok.* memory_kib=\([0-9]*\).*/\1/p' $work/out)" $((5800 << 10))

# No room to unpack its vmlinux beside it: the bzImage is entered at 64 bits, and unpacks itself.
boot "bzImage that unpacks itself" boot --memory 96M --kernel "$guest/vmlinuz"
same "exit code" $code 0
says '^EBB: boot ok'

boot reboot reboot --memory 128M
same "exit code of a reboot" $code 0
same "result of a reboot" "$(json $work/out.json result)" rebooted

boot panic panic --memory 128M
same "exit code of a panic" $code 1
says "panicked: Kernel panic - not syncing"

boot "triple fault" triple --memory 128M
same "exit code of a triple fault" $code 1
says "triple fault"
