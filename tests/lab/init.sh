#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
#
# Process 1 of the lab machine. Runs the steps that the kernel's command line names, lab.steps=A,B of the folder
# lab.folder=NAME, or a shell with lab.shell, and prints on the serial line what tests/lab/run.sh waits for:
#
#   LAB: ready
#   LAB: step NAME begin
#   LAB: step NAME ok|skipped|FAILED SECONDS
#   LAB: done
#   LAB: alive
export PATH=/bin HOME=/ EBB=/bin/ebb CK_DEFAULT_TIMEOUT=120
/bin/busybox --install -s /bin

die() {
    echo "LAB: cannot start: $*"
    poweroff -f
}

mkdir -p /proc /sys /dev /tmp /run
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/shm
mount -t tmpfs tmp /dev/shm
ifconfig lo 127.0.0.1 up

while read -r module _; do
    insmod "/modules/$module" || die "module $module"
done </modules/list

# Files of tests lie on a disk, as swap files do elsewhere; the kernel's own swap is compressed memory.
mount -t ext4 /dev/vda /tmp || die "no scratch disk"
echo lz4 >/sys/block/zram0/comp_algorithm
echo 512M >/sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null && swapon /dev/zram0 || die "no swap"
echo 1 >/sys/kernel/mm/ksm/run

: >/keeper.log
keeper >/keeper.log &
tries=0
until grep -q ready /keeper.log; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || die "no keeper"
    sleep 0.1
done

value() { # value KEY: of the kernel's command line
    tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"
}

# Guests never run on CPU 0. Whenever another CPU loads floating point registers, QEMU clears a flag of CPU 0, without a
# lock: what CPU 0 changes in the same word is lost, nested paging for one, and a guest ends by a triple fault.
cpus=$(printf %x $(((1 << $(nproc)) - 2)))

cd /lab || die "no /lab"
echo "LAB: ready"
if grep -qw lab.shell /proc/cmdline; then
    . /lab/steps/lib.sh
    echo "Steps: sh /lab/steps/NAME.sh    Leave: exit"
    taskset $cpus setsid cttyhack sh
fi
folder=/lab/$(value lab.folder)
for step in $(value lab.steps | tr ',' ' '); do
    echo "LAB: step $step begin"
    begin=$(cut -d ' ' -f 1 /proc/uptime)
    if taskset $cpus timeout -s KILL "$(sed -n 's/^# limit: //p' "$folder/$step.sh")" sh "$folder/$step.sh" </dev/null; then
        word=ok
    else
        status=$?
        word=FAILED
        [ $status != 77 ] || word=skipped
        if [ $status = 137 ]; then
            echo "killed: the step's time limit"
            killall -9 ebb 2>/dev/null
        fi
    fi
    echo "LAB: step $step $word $(echo "$begin $(cut -d ' ' -f 1 /proc/uptime)" | awk '{ printf "%.1f", $2 - $1 }')"
done
echo "LAB: done"
sync
poweroff -f
