# SPDX-License-Identifier: Apache-2.0
# limit: 300
#
# tests/vm/vm_run, what is done to ebb while it runs: signals, views, swap areas. Its other runs are like the demo.
. /lab/steps/lib.sh
CK_RUN_CASE=live run_program vm_run
