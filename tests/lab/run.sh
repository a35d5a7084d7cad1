#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# run.sh [--bench] [STEP...]
# run.sh --shell [STEP]
#
# Boots the lab, a machine of software with nested paging (docs/lab.md), and runs steps in it, all of tests/lab/steps by
# default. A line a step with the lab's own time, all that one printed which failed, and as the last line
# "N passed, N failed, N skipped". Judged by what the serial line says, never by QEMU's exit code.
#
# The lab has 2 CPUs. Steps with a line "# cpus: 3" get another one, after the others: in it guests run on two nodes.
#
#   build/lab/serial.log, serial-3cpus.log   what each printed; NAME.1.log is the attempt before a retry
#   build/lab/STEP.log                       a step's part of it
#
# --shell: a shell in the lab instead, in that of STEP. --bench: steps of tests/lab/bench, with Debian's QEMU on the
# scratch disk.
# LAB_WORDS: more for the lab kernel's command line.
set -u
cd "$(dirname "$0")/../.." || exit 1

boot_seconds=120   # until the lab is ready
silent_seconds=120 # without "LAB: alive", which comes each 20 s: the machine hangs
grace_seconds=30   # that a step may take beyond its limit, when the lab should have killed it
out=build/lab
passed=0 failed=0 skipped=0

usage() {
    echo "ebb: $*" >&2
    exit 2
}

shell=no
folder=steps disk=$out/disk
case ${1-} in
--shell)
    shell=yes
    shift
    ;;
--bench)
    folder=bench disk=$out/bench-disk
    shift
    ;;
esac
steps=("$@")
if [ ${#steps[@]} = 0 ]; then
    # First what all others stand on.
    [ $folder != steps ] || steps=(nested demo)
    for file in tests/lab/$folder/*.sh; do
        step=$(basename "$file" .sh)
        case $step in lib | nested | demo) continue ;; esac
        grep -qx '# by hand' "$file" || steps+=("$step")
    done
fi

limit_of() {
    sed -n 's/^# limit: //p' "tests/lab/$folder/$1.sh"
}

cpus_of() {
    sed -n 's/^# cpus: //p; $s/.*/2/p' "tests/lab/$folder/$1.sh" | head -1
}

for step in "${steps[@]}"; do
    grep -q '^# limit: [1-9][0-9]*$' "tests/lab/$folder/$step.sh" 2>/dev/null ||
        usage "no step '$step', or one without a line '# limit: SECONDS'; there are:" \
            "$(cd tests/lab/$folder && ls -- *.sh | grep -v '^lib' | sed 's/\.sh$//' | tr '\n' ' ')"
    case $(cpus_of "$step") in 2 | 3) ;; *) usage "step '$step' says '# cpus:', but not 2 or 3" ;; esac
done

# Sets qemu to the command of a machine with $cpus CPUs, the last of which is node 1's. Measured: thread=single hangs
# Linux guests; without idle=poll waking a CPU takes long and KVM's code patching can panic, but a third CPU that polls
# takes too much from the others; NUMA balancing takes pages away all the time.
lab_command() {
    local idle=poll
    [ "$cpus" = 2 ] || idle=halt
    qemu=(qemu-system-x86_64 -accel "tcg,thread=multi" -machine "q35,hmat=off" -cpu "max,la57=off"
        -smp "$cpus,sockets=$cpus" -m 4G
        -object "memory-backend-ram,id=m0,size=2G" -object "memory-backend-ram,id=m1,size=1G"
        -object "memory-backend-ram,id=m2,size=1G"
        -numa "node,nodeid=0,memdev=m0,cpus=0-$((cpus - 2))" -numa "node,nodeid=1,memdev=m1,cpus=$((cpus - 1))"
        -numa "node,nodeid=2,memdev=m2"
        -numa "dist,src=0,dst=1,val=20" -numa "dist,src=0,dst=2,val=40" -numa "dist,src=1,dst=2,val=40"
        -nodefaults -no-user-config -nographic -no-reboot
        -drive "if=none,id=scratch,file=$out/scratch.img,format=raw,cache=unsafe,discard=unmap"
        -device "virtio-blk-pci,drive=scratch" -kernel build/linux/vmlinuz -initrd $out/lab.cpio
        -append "console=ttyS0 panic=-1 quiet tsc=reliable numa_balancing=disable mitigations=off idle=$idle lab.folder=$folder ${LAB_WORDS-} $1")
}

fresh_disk() {
    rm -f $out/scratch.img
    truncate -s 4G $out/scratch.img && mke2fs -q -F -t ext4 -O ^has_journal -d $disk $out/scratch.img
}

# begin NAME; finish NAME ok|skipped|FAILED SECONDS [WHY]
begin() {
    printf 'lab/%-44s ' "$1"
    : >"$out/$1.log"
}

finish() {
    printf '%10s s  %s\n' "$3" "$2"
    case $2 in
    ok) passed=$((passed + 1)) ;;
    skipped)
        skipped=$((skipped + 1))
        grep '^SKIP:' "$out/$1.log" | sed 's/^/    /'
        ;;
    *)
        failed=$((failed + 1))
        tail -n 100 "$out/$1.log" | sed 's/^/    /'
        [ -z "${4-}" ] || echo "    $4"
        ;;
    esac
}

# Takes the serial line apart. Leaves the steps that have no result yet in steps, the one that was running in step, and
# when it last said that it is alive in heard. Returns 0 after "LAB: done", 1 when the machine ended before, 2 when it
# hung or the step did, beyond its limit.
follow() {
    local line part="" deadline=$((SECONDS + boot_seconds)) status name word seconds
    step="" since=$SECONDS heard=$SECONDS
    while [ $SECONDS -lt $deadline ] && [ $((SECONDS - heard)) -lt $silent_seconds ]; do
        read -r -t 5 -u 3 line
        status=$?
        if [ $status != 0 ]; then
            # Above 128: out of time, with the part of a line that has come.
            part+=$line
            [ $status -gt 128 ] && continue
            echo "$part" >>$log
            return 1
        fi
        line=${part}${line%$'\r'} part=""
        if [[ $line == *"LAB: alive" ]]; then
            part=${line%LAB: alive} heard=$SECONDS
            continue
        fi
        echo "$line" >>$log
        case $line in
        *"LAB: step "*" begin"*)
            step=${line#*LAB: step } step=${step%% *} since=$SECONDS
            deadline=$((SECONDS + $(limit_of "$step") + grace_seconds))
            begin "$step"
            ;;
        *"LAB: step "*)
            read -r name word seconds _ <<<"${line#*LAB: step }"
            finish "$name" "$word" "$seconds"
            steps=("${steps[@]:1}") step=""
            deadline=$((SECONDS + boot_seconds))
            ;;
        *"LAB: ready"*) echo "the lab is up after $((SECONDS - since)) s" ;;
        *"LAB: done"*) return 0 ;;
        *) [ -z "$step" ] || echo "$line" >>"$out/$step.log" ;;
        esac
    done
    return 2
}

# What can still be learnt of a machine that hangs: the registers of its CPUs at two times, and what an NMI makes its
# kernel say.
autopsy() {
    local word
    for word in 'info registers -a' 'info lapic 0' 'info lapic 1' 'info registers -a' nmi 'info registers -a'; do
        echo "$word" >&4
        sleep 1
    done
    timeout 2 cat <&5
    timeout 2 cat <&3
}

run_lab() {
    local status
    fresh_disk || exit 1
    rm -f $out/monitor.{in,out}
    mkfifo $out/monitor.{in,out} && exec 4<>$out/monitor.in 5<>$out/monitor.out
    : >$log
    lab_command "lab.steps=$(IFS=,; echo "${steps[*]}")"
    exec 3< <(exec "${qemu[@]}" -serial stdio -chardev "pipe,id=monitor,path=$out/monitor" -mon chardev=monitor \
        </dev/null 2>&1 4>&- 5>&- 9>&-)
    machine=$!
    follow
    status=$?
    [ $status != 2 ] || autopsy >"${log%.log}.hung.log"
    # All that matters has been said, and the disk is thrown away.
    kill -9 "$machine" 2>/dev/null
    wait "$machine" 2>/dev/null
    exec 3<&-
    machine=""
    return $status
}

# The machine itself broke, not a step in it. As far as is known it is the software CPU (docs/lab.md).
machine_broke() { # machine_broke STATUS
    case $1 in
    1) grep -q 'Kernel panic' $log && grep -q int3 $log && grep -q __schedule $log ;;
    2) [ $((SECONDS - heard)) -ge $((silent_seconds / 2)) ] ;;
    *) false ;;
    esac
}

# Runs all of steps in a machine with $cpus CPUs; those after one that broke the machine in another one. One retry.
run_steps() {
    local status why may_retry=yes
    log=$out/serial.log
    [ "$cpus" = 2 ] || log=$out/serial-${cpus}cpus.log
    while [ ${#steps[@]} != 0 ]; do
        run_lab
        status=$?
        why="the lab ended"
        case $status in
        0) return ;;
        2) why="the lab hung, see ${log%.log}.hung.log" ;;
        esac
        if [ $may_retry = yes ] && machine_broke $status; then
            may_retry=no
            cp $log "${log%.log}.1.log"
            printf '\n\n*** THE LAB BROKE, in a way that is known (docs/lab.md): %s. ONE RETRY. See %s ***\n\n' \
                "$why" "${log%.log}.1.log"
            continue
        fi
        if [ -z "$step" ]; then
            tail -n 40 $log | sed 's/^/    /'
            echo "    $why before the first step or between two"
            break
        fi
        finish "$step" FAILED $((SECONDS - since)) "$why"
        steps=("${steps[@]:1}")
    done
    for step in "${steps[@]}"; do
        echo "lab/$step was not reached: FAILED"
        failed=$((failed + 1))
    done
}

mkdir -p $out
exec 9>$out/lock
flock -n 9 || usage "a lab runs already in $PWD/$out"
for tool in qemu-system-x86_64 busybox cpio mke2fs xz memtester numactl; do
    PATH=$PATH:/usr/sbin:/sbin command -v $tool >/dev/null || {
        echo "ebb: no $tool here; tools/install-deps.sh test installs what the lab needs" >&2
        exit 3
    }
done
PATH=$PATH:/usr/sbin:/sbin
env -u MAKEFLAGS make -s -j"${JOBS:-1}" build/lab/lab.cpio || exit 1
[ $folder != bench ] || env -u MAKEFLAGS make -s -j"${JOBS:-1}" build/lab/bench-disk.stamp || exit 1

if [ $shell = yes ]; then
    fresh_disk || exit 1
    cpus=$(cpus_of "${steps[0]}")
    lab_command lab.shell
    exec "${qemu[@]}" -serial mon:stdio
fi

machine=""
trap '[ -z "$machine" ] || kill -9 "$machine" 2>/dev/null; exit 130' INT TERM HUP
asked=("${steps[@]}")
for cpus in 2 3; do
    steps=()
    for step in "${asked[@]}"; do
        [ "$(cpus_of "$step")" != $cpus ] || steps+=("$step")
    done
    [ ${#steps[@]} = 0 ] || run_steps
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
