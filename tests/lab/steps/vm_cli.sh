# SPDX-License-Identifier: Apache-2.0
# limit: 60
#
# tests/vm/vm_cli on nested paging.
. /lab/steps/lib.sh
run_program vm_cli
