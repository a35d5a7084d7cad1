# SPDX-License-Identifier: Apache-2.0
# limit: 300
#
# tests/vm/vm_linux on nested paging.
. "${LAB:-/lab}/steps/lib.sh"
# One of its tests is a person at a terminal.
mkdir -p /dev/pts
grep -q ' /dev/pts ' /proc/mounts || mount -t devpts devpts /dev/pts || fail "no terminals"
run_program vm_linux
