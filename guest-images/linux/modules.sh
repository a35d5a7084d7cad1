#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# modules.sh MODULES OUTDIR NAME...
#
# Unpacks the named modules of the kernel's folder MODULES, and what they depend on, into OUTDIR. OUTDIR/list gets a
# line for each, in the order in which they can be loaded:
#
#   FILE -        always wanted
#   FILE ID...    wanted where a virtio device of one of these types is
#
# A name that is built into the kernel is no module, and left out; one that is unknown is an error.
set -eu

modules=$1 out=$2
shift 2
mkdir -p "$out"
: >"$out/list"

# A file's name may have - where the module's has _.
file_of() {
    find "$modules" -name "$(echo "$1" | sed 's/[-_]/[-_]/g').ko*" | head -1
}

# Lines KEY=VALUE of the module's own section .modinfo.
info_of() {
    tr '\0' '\n' <"$1" | sed -n "s/^$2=//p"
}

# add NAME WANTED: dependencies first. A module that two types of device want is listed twice.
add() ( # in a shell of its own: it calls itself
    file=$(file_of "$1")
    if [ -z "$file" ]; then
        grep -qE "/$(echo "$1" | sed 's/[-_]/[-_]/g')\.ko\$" "$modules/modules.builtin" && exit 0
        echo "modules.sh: the kernel has no module $1" >&2
        exit 1
    fi
    name=$(basename "$file" | sed 's/\.ko.*//')
    case $file in
    *.xz) xz -dc "$file" >"$out/$name.ko" ;;
    *) cp "$file" "$out/$name.ko" ;;
    esac
    wanted=${2:-$(info_of "$out/$name.ko" alias | sed -n 's/^virtio:d\([0-9A-F]*\)v.*/\1/p' |
        while read -r id; do printf '%d ' "0x$id"; done)}
    wanted=${wanted:--}
    for needed in $(info_of "$out/$name.ko" depends | tr ',' ' '); do
        add "$needed" "$wanted" || exit 1
    done
    line=$(echo "$name.ko $wanted" | sed 's/ *$//')
    grep -qxF "$line" "$out/list" || echo "$line" >>"$out/list"
)

for name in "$@"; do
    add "$name" "" || exit 1
done
