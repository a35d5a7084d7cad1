#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# initramfs.sh ROOT FILE PROGRAM...
#
# Puts each program, a path or a command's name, into ROOT/bin with the shared libraries that it needs at their own
# paths, and packs ROOT as the initramfs FILE. A PROGRAM lib*.so* is a library that one of them loads as it runs: it goes
# to its own path, too. Programs come without debugging symbols. Not compressed: unpacking would cost more than reading
# it.
set -eu

root=$1 file=$2
shift 2
mkdir -p "$root/bin"
# Some of Debian's commands stand where only root looks.
PATH=$PATH:/usr/sbin:/sbin
for program in "$@"; do
    path=$(command -v "$program") || {
        echo "ebb: no $program here: tools/install-deps.sh test" >&2
        exit 3
    }
    libraries=$({ ldd "$path" 2>/dev/null || true; } | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p')
    case $path in
    */lib*.so*) libraries="$libraries $path" ;;
    *) strip -o "$root/bin/$(basename "$path")" "$path" ;;
    esac
    for library in $libraries; do
        install -D "$library" "$root$library"
    done
done
(cd "$root" && find . | LC_ALL=C sort | cpio -o --quiet -H newc -R 0:0) >"$file.part"
mv "$file.part" "$file"
