#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# fetch.sh [OUTDIR [PACKAGE]]
#
# Gets a kernel of Debian's and unpacks it, installing nothing; nothing to do when it is there already:
#
#   OUTDIR/vmlinuz    the bzImage, as it comes
#   OUTDIR/vmlinux    the ELF image inside it, which boots faster by PVH
#   OUTDIR/modules/   lib/modules/VERSION of the package
#   OUTDIR/version    what `uname -r` will say; written last
#
# OUTDIR is build/linux by default, PACKAGE the meta package of the kernel for clouds. It names the version; remove
# OUTDIR to follow a newer one.
set -eu

out=${1:-build/linux}
meta=${2:-linux-image-6.12-cloud-amd64}
[ ! -e "$out/version" ] || exit 0

fail() {
    echo "ebb: $*" >&2
    exit 3
}

for tool in apt-get apt-cache dpkg-deb zstd; do
    command -v $tool >/dev/null || fail "no $tool here; guests' kernels come from Debian: tools/install-deps.sh test"
done
package=$(apt-cache depends $meta 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
[ -n "$package" ] || fail "apt knows no $meta; run 'apt-get update' with a line like" \
    "'deb http://deb.debian.org/debian-security bookworm-security main' in /etc/apt/sources.list"

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# number OFFSET BYTES: of the bzImage's setup header, Documentation/arch/x86/boot.rst.
number() {
    od -A n -t "u$2" -j "$1" -N "$2" "$work/boot/vmlinuz-$version" | tr -d ' '
}

(cd "$work" && apt-get -qq download "$package" 2>apt.log) || fail "could not download $package: $(cat "$work/apt.log")"
dpkg-deb -x "$work"/linux-image-*.deb "$work"
version=${package#linux-image-}
[ -e "$work/boot/vmlinuz-$version" ] || fail "$package holds no boot/vmlinuz-$version"

# The payload follows setup_sects + 1 sectors; its last four bytes are the length of what it holds.
start=$((($(number 497 1) + 1) * 512 + $(number 584 4)))
bytes=$(($(number 588 4) - 4))
tail -c +$((start + 1)) "$work/boot/vmlinuz-$version" | head -c $bytes >"$work/payload"
zstd -q -d -f -o "$work/vmlinux" "$work/payload" || fail "the kernel inside $package is not packed by zstd"

rm -rf "$out/modules"
mv "$work/lib/modules/$version" "$out/modules"
mv "$work/vmlinux" "$out/vmlinux"
mv "$work/boot/vmlinuz-$version" "$out/vmlinuz"
echo "$version" >"$out/version"
