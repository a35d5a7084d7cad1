#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# install-deps.sh [--check] build|test|run
#
# Installs the Debian packages that are missing for building Ebb, for testing it, or for running a build/ebb that was
# built elsewhere; says which in one line.
# --check installs nothing: it names what is missing and fails.
set -eu

# Package, and what proves that it is there: a header, a command with a leading !, or a pattern of file names from /.
build_packages="
gcc                !gcc
libc6-dev          stdio.h
liblz4-dev         lz4.h
libzstd-dev        zstd.h
libxxhash-dev      xxhash.h
liburing-dev       liburing.h
libmicrohttpd-dev  microhttpd.h
libjansson-dev     jansson.h
libnuma-dev        numa.h
libcairo2-dev      cairo/cairo.h
"
# What building does without: installed with it where the package is to be had, never asked for by --check.
optional_build_packages="
libcapstone-dev    capstone/capstone.h
"
run_packages="
liblz4-1           /usr/lib/*/liblz4.so.1
libzstd1           /usr/lib/*/libzstd.so.1
libxxhash0         /usr/lib/*/libxxhash.so.0
liburing2          /usr/lib/*/liburing.so.2
libmicrohttpd12    /usr/lib/*/libmicrohttpd.so.12
libjansson4        /usr/lib/*/libjansson.so.4
libnuma1           /usr/lib/*/libnuma.so.1
"
# For an ebb that was built with libcapstone-dev, and for the pictures of ebb heatmap --png.
optional_run_packages="
libcapstone4       /usr/lib/*/libcapstone.so.4
libcairo2          /usr/lib/*/libcairo.so.2
"
test_packages="
check              check.h
clang              !clang
clang-format-14    !clang-format-14
libclang-rt-14-dev /usr/lib/llvm-14/lib/clang/*/lib/linux/libclang_rt.fuzzer-*
file               !file
qemu-system-x86    !qemu-system-x86_64
busybox-static     !busybox
cpio               !cpio
xz-utils           !xz
zstd               !zstd
e2fsprogs          !mke2fs
memtester          !memtester
numactl            !numactl
"

# Some commands stand where only root looks.
PATH=$PATH:/usr/sbin:/sbin

is_there() {
    # shellcheck disable=SC2086
    case $1 in
    !*) command -v "${1#!}" >/dev/null ;;
    /*) ls $1 >/dev/null 2>&1 ;;
    *) echo "#include <$1>" | gcc -E -x c - >/dev/null 2>&1 ;;
    esac
}

missing_of() {
    echo "$1" | while read -r package proof; do
        [ -z "$package" ] || is_there "$proof" || printf ' %s' "$package"
    done
}

check=no
if [ "${1-}" = --check ]; then
    check=yes
    shift
fi
optional_packages=$optional_build_packages
case ${1-} in
build) missing=$(missing_of "$build_packages") ;;
test) missing=$(missing_of "$build_packages$test_packages") ;;
run)
    missing=$(missing_of "$run_packages")
    optional_packages=$optional_run_packages
    ;;
*)
    echo "usage: install-deps.sh [--check] build|test|run" >&2
    exit 2
    ;;
esac
wanted=
[ $check = yes ] || wanted=$(missing_of "$optional_packages")
[ -n "$missing$wanted" ] || exit 0
# For an optional package alone nobody has to become root.
if [ -z "$missing" ] && { ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; }; then
    exit 0
fi

if [ $check = yes ]; then
    echo "ebb: missing packages; as root, 'tools/install-deps.sh $1' installs them, or: apt-get install$missing" >&2
    exit 3
fi
if ! command -v apt-get >/dev/null; then
    echo "ebb: no apt-get here; install these Debian packages or their like:$missing" >&2
    exit 3
fi
if [ "$(id -u)" != 0 ]; then
    echo "ebb: installing needs root; run: sudo apt-get install$missing" >&2
    exit 3
fi

echo "installing$missing$wanted"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt="apt-get -q -y -o DPkg::Lock::Timeout=300"
# An old package list is good enough when it is there and its packages still are.
# shellcheck disable=SC2086
if [ -n "$missing" ] && ! { $apt update && $apt install --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "ebb: could not install$missing" >&2
    exit 3
fi
# shellcheck disable=SC2086
if [ -n "$wanted" ] && ! $apt install --no-install-recommends $wanted >"$log" 2>&1; then
    echo "ebb: did without$wanted" >&2
fi
