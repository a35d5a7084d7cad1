# SPDX-License-Identifier: Apache-2.0
# limit: 400
#
# Hinting: a dump leaves the guest's free pages out, and no page that is in use is missing in it. `ebb hint` takes free
# pages while the guest takes, writes and frees pages all the time, and every page is right afterwards.
. "${LAB:-/lab}/steps/lib.sh"

start_linux "boot;fill,100;touch,300;wait,dumped;rewrite;touch,150;rewrite;touch,200;rewrite;touch,250;rewrite;verify;wait,end;verify" \
    --console --memory 512M --budget 640M --balloon reporting=off
wait_line 'EBB: waiting for dumped' 200
before=$(resident_kib $ebb_pid)
ask dump $work/vm.core
core=$(stat -c %b $work/vm.core)
echo "the dump takes $((core / 2048)) MiB of disk for 512 MiB of memory"
at_most "the dump's blocks of 512 bytes" "$core" $((260 * 2048))
corepages $work/vm.core >$work/pages || fail "the dump cannot be read"
cat $work/pages
at_least "pages of the guest's area in the dump" "$(sed -n 's/^distinct //p' $work/pages)" 25600
rm $work/vm.core
ask hint
fallen "resident memory of ebb" "$before" "$(resident_kib $ebb_pid)" 307200 80
tell dumped
for round in 1 2 3 4 5; do
    grep -q 'EBB: waiting for end' $work/ebb.log || ask hint
done
wait_line 'EBB: waiting for end' 200
ask hint
tell end
done_linux 60
