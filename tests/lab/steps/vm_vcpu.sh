# SPDX-License-Identifier: Apache-2.0
# limit: 120
#
# tests/vm/vm_vcpu on nested paging.
. /lab/steps/lib.sh
run_program vm_vcpu
