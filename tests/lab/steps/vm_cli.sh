# SPDX-License-Identifier: Apache-2.0
# limit: 120
#
# tests/vm/vm_cli on this kernel.
. /lab/steps/lib.sh
run_program vm_cli
