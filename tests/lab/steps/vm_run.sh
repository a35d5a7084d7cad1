# SPDX-License-Identifier: Apache-2.0
# limit: 120
#
# tests/vm/vm_run on nested paging.
. /lab/steps/lib.sh
run_program vm_run
