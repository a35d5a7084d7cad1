# SPDX-License-Identifier: Apache-2.0
# limit: 500
#
# Writers on CPUs of two nodes while pages move between three, up and down the tiers, in 2 MiB and in single pages.
. "${LAB:-/lab}/steps/lib.sh"

run_program vm_numa_stress
