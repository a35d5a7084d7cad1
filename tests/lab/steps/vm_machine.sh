# SPDX-License-Identifier: Apache-2.0
# limit: 300
#
# tests/vm/vm_machine on nested paging.
. /lab/steps/lib.sh
run_program vm_machine
