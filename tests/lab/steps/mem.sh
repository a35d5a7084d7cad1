# SPDX-License-Identifier: Apache-2.0
# limit: 400
#
# virtio-mem: 256 MiB are plugged, used, unplugged; what the guest had before is right.
. "${LAB:-/lab}/steps/lib.sh"

guest_words="$guest_words memhp_default_state=online_movable"
start_linux "boot;fill,60;wait,plugged;meminfo;touch,300;wait,unplugged;meminfo;verify" \
    --console --memory 256M --hotplug-memory 512M --budget 600M
wait_line 'EBB: waiting for plugged' 150
ask mem 256M
grep -q '^256 MiB plugged' $work/answer || fail "it was not plugged"
tell plugged
wait_line 'EBB: waiting for unplugged' 100
ask mem 0
grep -q '^0 bytes plugged' $work/answer || fail "it was not unplugged"
tell unplugged
done_linux 60
