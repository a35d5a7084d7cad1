#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# coverage.sh BUILD: prints, for each source file of mm/, the lines that ran in the coverage variant's tests, and the
# total. A figure to look at, never a failure.
set -u
build=$1

# A module that no test ran has notes (.gcno) but no counts; gcov then reports 0%.
find "$build/mm" -name '*.gcno' | sort | while read -r notes; do
    gcov -n -o "$(dirname "$notes")" "$notes" 2>/dev/null
done | awk '
    /^File / { file = $2; gsub(/\x27/, "", file) }
    /^Lines executed:/ && file ~ /^mm\/.*\.c$/ {
        split($2, part, ":"); sub(/%/, "", part[2])
        lines = $4; ran = lines * part[2] / 100
        printf "  %6.2f%% of %5d lines  %s\n", part[2], lines, file
        all += lines; all_ran += ran; file = ""
    }
    END { if (all) printf "  %6.2f%% of %5d lines  mm/ in all\n", 100 * all_ran / all, all }'
