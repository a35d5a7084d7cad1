#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# calls.sh ROOT: what only one place may do.
#
#   open /dev/kvm                            vmm/
#   userfaultfd and its ioctls, madvise      host memory: vmm/ hostmem* memhost* faultd* uffd* guest_range* kernel_backend*
#   exit                                     vmm/main.c, vmm/options.c, and tools
#   map memory, speak KVM                    not in mm/ and devices/
set -u
cd "$1" || exit 1
bad=0

hostmem='^vmm/(hostmem|memhost|faultd|uffd|guest_range|kernel_backend)'

# forbid WHAT PATTERN EXCEPT-FILES FOLDERS...: comments are not code.
forbid() {
    what=$1 pattern=$2 except=$3
    shift 3
    found=$(find "$@" -name '*.[ch]' 2>/dev/null | sort | grep -vE "$except" | xargs -r grep -nHE "$pattern" |
        grep -vE '^[^:]*:[0-9]+: *(/\*|\*|//)')
    [ -z "$found" ] && return
    echo "$found" | sed "s|\$|    <- $what|"
    bad=1
}

forbid "only vmm/ opens /dev/kvm" '"/dev/kvm"' '^vmm/' mm devices tools
forbid "only host memory speaks userfaultfd" '^[^"]*\<(UFFDIO_[A-Z]+|SYS_userfaultfd|__NR_userfaultfd)\>' \
    "$hostmem" mm devices vmm tools
forbid "only host memory advises the kernel" '\<(process_)?madvise *\(' "$hostmem" \
    mm devices vmm tools
forbid "mm and devices map no memory and know no KVM" '\<(mmap|munmap|mremap) *\(|linux/kvm\.h' '^$' mm devices
forbid "only main.c and options.c exit" '\<_?exit *\(' '^vmm/(main|options)\.c$' mm devices vmm
exit $bad
