#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# loaded.sh ROOT: a library that is loaded while Ebb runs is seen by no linker. Each one has to be named in
# tests/lab/rules.mk, which puts it into the lab, and in tools/install-deps.sh, which installs it for users.
set -u
cd "$1" || exit 1
bad=0

for library in $(find vmm devices mm tools -name '*.c' -print0 2>/dev/null | xargs -0r grep -hoE 'dlopen\("[^"]*"' | cut -d'"' -f2); do
    for list in tests/lab/rules.mk tools/install-deps.sh; do
        grep -qF "$library" "$list" 2>/dev/null && continue
        echo "$library is loaded while Ebb runs, and $list does not name it"
        bad=1
    done
done
exit $bad
