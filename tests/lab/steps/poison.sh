# SPDX-License-Identifier: Apache-2.0
# limit: 500
#
# A guest whose kernel relies on what its free pages hold: zeros (init_on_free=1: it does not clear a page again when it
# gives it out), or a pattern that it checks (page_poison=1). Free pages leave by reports or by `ebb hint`, and come back
# as they must: fresh memory is zero, and the kernel does not complain. Debian's kernel for clouds has no page poisoning,
# the generic one has.
. "${LAB:-/lab}/steps/lib.sh"

# run_with WORD REPORTING POISON: what the guest asks for as the content of its free pages
run_with() {
    echo "--- $1, reporting $2"
    guest_words="$usual_words $1"
    start_linux "boot;fill,200;wait,free;free;wait,touch;touch,200;fill,60;touch,120;rewrite;touch,120;free;fill,180;verify" \
        --console --memory 320M --budget 400M --balloon reporting=$2
    wait_line 'EBB: waiting for free' 200
    same "the guest's poison" "$(show balloon poison)" $3
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
for mode in on off; do
    run_with init_on_free=1 $mode 0
done
guest=$guest-generic
for mode in on off; do
    run_with page_poison=1 $mode $((0xaaaaaaaa))
done
