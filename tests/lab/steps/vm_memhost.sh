# SPDX-License-Identifier: Apache-2.0
# limit: 120
#
# tests/vm/vm_memhost on nested paging.
. /lab/steps/lib.sh
run_program vm_memhost
