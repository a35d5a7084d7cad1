# SPDX-License-Identifier: Apache-2.0
# limit: 400
#
# virtio-mem: 256 MiB are plugged, used, unplugged; what the guest had before is right.
. "${LAB:-/lab}/steps/lib.sh"

# plug SIZE TEXT: `ebb mem` gives up when nothing moves for 3 s, and Linux takes 128 MiB offline in one go, which takes longer
# here beside other work.
plug() {
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        ask mem $1
        ! grep -q "^$2 plugged" $work/answer || return 0
    done
    fail "$2 were to be plugged, and are not"
}

guest_words="$guest_words memhp_default_state=online_movable"
start_linux "boot;fill,60;wait,plugged;meminfo;touch,300;wait,unplugged;meminfo;verify" \
    --console --memory 256M --hotplug-memory 512M --budget 600M
wait_line 'EBB: waiting for plugged' 150
plug 256M '256 MiB'
tell plugged
wait_line 'EBB: waiting for unplugged' 100
plug 0 '0 bytes'
tell unplugged
done_linux 60
