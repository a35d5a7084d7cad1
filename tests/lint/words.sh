#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# words.sh ROOT: no unfinished work, no path of somebody's machine, in any file that git knows or would add.
set -u
cd "$1" || exit 1

# The pattern is built so that this file does not name itself.
words="TO""DO|FIX""ME|XX""X"
found=$({ git ls-files --cached --others --exclude-standard 2>/dev/null || find . -type f; } | grep -v '^LICENSE$' |
    tr '\n' '\0' | xargs -0 grep -nIHE "\\<($words)\\>|(^|[^a-zA-Z0-9_])(/wo""rk|/fa""rm|/ro""ot)/" 2>/dev/null)
[ -z "$found" ] && exit 0
echo "$found"
exit 1
