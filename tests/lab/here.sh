#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# here.sh [--bench] [STEP...]
#
# The lab's steps with Linux guests on this host's own KVM, where it can run them: hardware virtualization. A guest is
# started to find out; where it does not boot, that is one skip. Prints as run.sh does, and the same last line.
# --bench: steps of tests/lab/bench, beside this host's QEMU; their results are in build/lab/here/STEP.log.
set -u
cd "$(dirname "$0")/../.." || exit 1

out=build/lab/here
passed=0 failed=0 skipped=0
folder=steps more=""
if [ "${1-}" = --bench ]; then
    shift
    folder=bench more=build/lab/bench-disk.stamp
fi
mkdir -p $out
env -u MAKEFLAGS make -s -j"${JOBS:-1}" build/ebb build/linux/guest.cpio build/linux-generic/guest.cpio build/lab/corepages build/lab/peer $more || exit 1

finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
    exit
}

skip() {
    echo "    SKIP: Linux guests on this host: $*"
    skipped=$((skipped + 1))
    finish
}

[ -e /dev/kvm ] || skip "there is no /dev/kvm"
timeout -k 5 40 build/ebb run --kernel build/linux/vmlinux --initrd build/linux/guest.cpio --memory 256M --api none \
    --cmdline "reboot=k panic=-1 ebb.run=boot" >$out/probe.log 2>&1
grep -q 'EBB: boot ok' $out/probe.log ||
    skip "its KVM does not boot one; see $out/probe.log"

export LAB=$PWD/tests/lab GUEST=$PWD/build/linux QEMU=$PWD/build/lab/bench-disk/qemu EBB_HERE=1
export PATH=$PWD/build:$PWD/build/lab:/usr/sbin:/sbin:$PATH
steps=("$@")
[ ${#steps[@]} != 0 ] || [ $folder = steps ] || steps=(beside)
[ ${#steps[@]} != 0 ] || mapfile -t steps < <(grep -LxE '# by hand' tests/lab/steps/*.sh | xargs grep -lE 'start_linux|guest\.cpio' | grep -v '/lib' |
    xargs -n 1 basename -s .sh)
for step in "${steps[@]}"; do
    begin=$SECONDS
    printf 'here/%-43s ' "$step"
    timeout -k 10 "$(sed -n 's/^# limit: //p' "tests/lab/$folder/$step.sh")" busybox sh "tests/lab/$folder/$step.sh" \
        >"$out/$step.log" 2>&1 </dev/null
    case $? in
    0) word=ok passed=$((passed + 1)) ;;
    77) word=skipped skipped=$((skipped + 1)) ;;
    *) word=FAILED failed=$((failed + 1)) ;;
    esac
    printf '%10s s  %s\n' $((SECONDS - begin)) $word
    [ $word != FAILED ] || tail -n 100 "$out/$step.log" | sed 's/^/    /'
done
finish
