# SPDX-License-Identifier: Apache-2.0
# limit: 120
#
# tests/vm/vm_guest_numa on nested paging.
. "${LAB:-/lab}/steps/lib.sh"
run_program vm_guest_numa
