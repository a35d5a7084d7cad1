#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# headers.sh ROOT: every source begins with its licence; every header has a guard named after its path, MM_FRAME_ZONE_H.
set -u
cd "$1" || exit 1

find mm vmm devices tools guest-images tests -name '*.[chS]' 2>/dev/null | sort | {
    bad=0
    while read -r file; do
        if ! head -1 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0'; then
            echo "$file:1: the licence line is missing"
            bad=1
        fi
        case $file in *.h) ;; *) continue ;; esac
        guard=$(echo "$file" | tr 'a-z/.-' 'A-Z___')
        short=$(echo "$guard" | sed 's/^GUEST_IMAGES_//')
        if ! grep -qxE "#ifndef ($guard|$short)" "$file" || ! grep -qxE "#define ($guard|$short)" "$file"; then
            echo "$file: no guard $guard"
            bad=1
        fi
    done
    exit $bad
}
