#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# selftest.sh ROOT: every lint passes on a small good tree and fails on each bad one. A lint that cannot fail is none.
set -u
lints=$(cd "$1/tests/lint" && pwd)
style=$(cd "$1" && pwd)/.clang-format
tree=$(mktemp -d) || exit 1
trap 'rm -rf "$tree"' EXIT
bad=0

write() { # write FILE TEXT: with licence line; \n in TEXT
    mkdir -p "$tree/$(dirname "$1")"
    printf '/* SPDX-License-Identifier: Apache-2.0 */\n%b' "$2" >"$tree/$1"
}

good_tree() {
    rm -rf "${tree:?}"/* "$tree/.clang-format"
    cp "$style" "$tree/.clang-format"
    write mm/base/a.h '#ifndef MM_BASE_A_H\n#define MM_BASE_A_H\n#endif\n'
    write mm/mm.h '#ifndef MM_MM_H\n#define MM_MM_H\n#include "mm/base/a.h"\n#endif\n'
    write mm/frame/b.c '#include "mm/base/a.h"\nextern const int table[];\nconst int table[] = {1, 2};\n'
    write devices/c.c '#include "mm/mm.h"\n'
    write vmm/kvm.c '#include "mm/mm.h"\nconst char *path(void)\n{\n    return "/dev/kvm";\n}\n'
    compile
}

compile() {
    mkdir -p "$tree/build/release"
    rm -f "$tree/build/release/libmm.a"
    (cd "$tree" && gcc -I. -c -o build/b.o mm/frame/b.c && ar rcs build/release/libmm.a build/b.o && rm build/b.o)
}

# expect LINT pass|fail WHY
expect() {
    if "$lints/$1.sh" "$tree" >"$tree/out" 2>&1; then got=pass; else got=fail; fi
    if [ $got != "$2" ]; then
        echo "$1: expected $2: $3"
        cat "$tree/out"
        bad=1
    fi
    rm -f "$tree/out"
}

# expect_fail LINT FILE TEXT: the good tree and one bad file.
expect_fail() {
    good_tree
    write "$2" "$3"
    [ "$1" != globals ] || compile
    expect "$1" fail "$2: $3"
}

good_tree
for lint in includes calls words headers format globals loaded; do
    expect $lint pass "the good tree"
done

expect_fail includes mm/base/x.c '#include "mm/mm.h"\n'
expect_fail includes mm/frame/x.c '#include "vmm/kvm.h"\n'
expect_fail includes mm/mm.c '#include "base/a.h"\n'
write mm/swap/s.h ''
write mm/map/x.c '  #  include "mm/swap/s.h"\n'
expect includes fail 'map includes swap'
good_tree
write mm/frame/f.h ''
write devices/x.c '#include "mm/frame/f.h"\n'
expect includes fail 'a device includes a frame'
good_tree
write guest-images/g/x.c '#include "mm/mm.h"\n'
expect includes fail 'the guest includes mm.h'

expect_fail calls mm/base/x.c 'const char *p = "/dev/kvm";\n'
expect_fail calls vmm/run.c 'int f(void)\n{\n    return madvise(0, 0, 0);\n}\n'
expect_fail calls vmm/run.c 'int n = UFFDIO_MOVE;\n'
expect_fail calls mm/base/x.c 'void *p = mmap(0, 0, 0, 0, 0, 0);\n'
expect_fail calls devices/x.c '#include <linux/kvm.h>\n'
expect_fail calls vmm/run.c 'void f(void)\n{\n    exit(1);\n}\n'

expect_fail words vmm/x.c "/* TO""DO: later */\n"
expect_fail words vmm/x.c "/* FIX""ME */\n"
expect_fail words vmm/x.c "const char *p = \"/wo""rk/x\";\n"
good_tree
write vmm/x.c 'const char *template = "/tmp/ebb-XXXXXX";\n'
expect words pass "a template of mkstemp"
expect_fail words vmm/x.c "/* see /ro""ot/notes */\n"

expect_fail headers mm/base/x.h 'int x;\n'
expect_fail headers mm/base/x.h '#ifndef WRONG_H\n#define WRONG_H\n#endif\n'
good_tree
echo 'int x;' >"$tree/mm/base/x.c"
expect headers fail 'no licence line'

expect_fail format vmm/x.c 'int  f( void ){return 1;}\n'

expect_fail globals mm/frame/b.c 'int counter = 1;\n'
expect_fail globals mm/frame/b.c 'int counter;\n'
expect_fail globals mm/frame/b.c 'int f(void);\nint f(void)\n{\n    static int n;\n    return n++;\n}\n'
expect_fail globals mm/frame/b.c '_Thread_local int depth;\n'
loader='void *f(void)\n{\n    return dlopen("libx.so.1", 0);\n}\n'
expect_fail loaded vmm/x.c "$loader"
write tests/lab/rules.mk '# libx.so.1\n'
expect loaded fail 'not installed for users'
write tools/install-deps.sh '# libx.so.1\n'
expect loaded pass 'named in both lists'

expect_fail globals mm/frame/b.c 'extern int x;\nint *pointer = &x;\n'
exit $bad
