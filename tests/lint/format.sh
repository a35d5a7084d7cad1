#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# format.sh ROOT: clang-format would change nothing. Versions differ in what they change: 14 is the one.
set -u
cd "$1" || exit 1

if ! command -v clang-format-14 >/dev/null; then
    echo "SKIP: clang-format-14 is not installed"
    exit 0
fi
find mm vmm devices tools guest-images tests -name '*.[ch]' 2>/dev/null | sort |
    xargs -r clang-format-14 --style=file --dry-run -Werror --ferror-limit=1
