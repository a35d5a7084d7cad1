# SPDX-License-Identifier: Apache-2.0
# limit: 400
#
# A guest whose kernel relies on what its free pages hold: zeros (init_on_free=1: it does not clear a page again when it
# gives it out), or a pattern that it checks (page_poison=1). Free pages leave by reports or by `ebb hint`, and come back
# as they must: fresh memory is zero, and the kernel does not complain. Debian's kernel for clouds has no page poisoning;
# one at /tmp/guest that has it is tested with it, too.
. "${LAB:-/lab}/steps/lib.sh"

# run_with WORD REPORTING
run_with() {
    echo "--- $1, reporting $2"
    guest_words="$usual_words $1"
    start_linux "boot;fill,200;wait,free;free;wait,touch;touch,200;fill,60;touch,120;rewrite;touch,120;free;fill,180;verify" \
        --console --memory 320M --budget 400M --balloon reporting=$2
    wait_line 'EBB: waiting for free' 200
    before=$(resident_kib $ebb_pid)
    tell free
    wait_line 'EBB: waiting for touch' 20
    if [ $2 = on ]; then
        sleep 5
    else
        ask hint
    fi
    fallen "resident memory of ebb" "$before" "$(resident_kib $ebb_pid)" 204800 80
    tell touch
    wait_line "EBB: (done|.* failed)|$complaint" 100
    ! grep -E "$complaint" $work/ebb.log || fail "the guest's kernel complains"
    done_linux 20
}

complaint='pagealloc:|memory corruption|Bad page|BUG:'
usual_words=$guest_words
words=init_on_free=1
! grep -q page_poison "$guest/vmlinux" || words="page_poison=1 $words"
for word in $words; do
    run_with $word on
    run_with $word off
done
