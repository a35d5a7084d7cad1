#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# globals.sh ROOT: mm/ has no mutable globals: nothing in its objects' data or bss. Constant tables that need
# relocation (.data.rel.ro) are constant.
#
# The exceptions, with their reason:
#   (none)
set -u
cd "$1" || exit 1

library=build/release/libmm.a
if [ -e Makefile ]; then
    env -u MAKEFLAGS make -s $library || exit 1
fi
found=$(objdump -t $library | awk '
    /:     file format/ { object = $1 }
    NF > 3 && $(NF - 2) ~ /^(\.t?(data|bss)|\*COM\*)/ && $(NF - 2) !~ /^\.data\.rel\.ro/ && $NF !~ /^\./ {
        print object " " $NF " in " $(NF - 2)
    }')
[ -z "$found" ] && exit 0
echo "$found"
exit 1
