#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# includes.sh ROOT: who may include whom.
#
#   mm/        mm only; inside it base < frame < map < swap < reclaim < policy < the files of mm/ itself.
#              mm/host_ops.h and mm/stats.h are contracts that every layer speaks; they stand beside base.
#              mm/reclaim/host.h defines the structs that mm/mm.h declares, and may include it.
#   devices/   devices, mm/mm.h, mm/base, mm/map/guest_mem.h
#   vmm/       vmm, devices, mm and the embedded guest's wire format
#   tools/     tools, mm/base and the API's wire format, vmm/api*.h
#   guest-images/  its own, mm/frame, mm/base
# Quoted includes name a file from the root.
set -u
cd "$1" || exit 1

# shellcheck disable=SC2016
find mm vmm devices tools guest-images -name '*.[chS]' 2>/dev/null | sort | xargs -r awk '
function layer(path,    part, n) {
    if (path == "mm/host_ops.h" || path == "mm/stats.h")
        return 1
    n = split(path, part, "/")
    return n == 2 ? 7 : rank[part[2]]
}
function allowed(from, to) {
    if (from == "mm/reclaim/host.h" && to == "mm/mm.h")
        return 1
    if (from ~ /^mm\//)
        return to ~ /^mm\// && layer(to) > 0 && layer(to) <= layer(from)
    if (from ~ /^devices\//)
        return to ~ /^devices\// || to ~ /^mm\/base\// || to == "mm/mm.h" || to == "mm/map/guest_mem.h"
    if (from ~ /^vmm\//)
        return to ~ /^(vmm|devices|mm)\// || to == "guest-images/ebbguest/abi.h"
    if (from ~ /^tools\//)
        return to ~ /^(tools|mm\/base)\// || to ~ /^vmm\/api[^\/]*\.h$/
    return to ~ /^guest-images\// || to ~ /^mm\/(frame|base)\//
}
function complain(text) {
    printf "%s:%d: %s\n", FILENAME, FNR, text
    bad = 1
}
BEGIN { split("base frame map swap reclaim policy", names, " "); for (i in names) rank[names[i]] = i + 0 }
/^[ \t]*#[ \t]*include[ \t]*"/ {
    split($0, quoted, "\"")
    if ((getline line < quoted[2]) < 0)
        complain("no file " quoted[2] " from the root")
    else if (!allowed(FILENAME, quoted[2]))
        complain("must not include " quoted[2])
    close(quoted[2])
}
END { exit bad }'
