/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport for kernels without UFFDIO_MOVE. Both ways: UFFDIO_COPY to the destination, MADV_DONTNEED of the original,
 * HOSTMEM_COPY_PAGES at a time. The kernel copies, so no thread of ours reads guest memory and none can fault on it.
 *
 * take() first write-protects what it copies. A vCPU that writes meanwhile waits; its write-protect event is handled
 * after take() has let go of the block lock: the page is absent then and comes back through mm_fault, or take() failed
 * and has made it writable again. Either wakes the vCPU.
 *
 * A device that writes to a page by DMA is not stopped by write protection: pages must be pinned in mm/, which does not
 * take them then. (UFFDIO_MOVE sees the pin and refuses.)
 */
#include "vmm/hostmem.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm/uffd.h"

static bool is_set(uint64_t mask, uint32_t bit)
{
    return mask >> bit & 1;
}

/* Copies the pages of @mask home, run by run. *done: pages in order, absent ones included, that need no more work. */
static int copy_home(struct hostmem *hm, char *slot, const char *guest, uint32_t nr, uint64_t mask, uint32_t *done)
{
    uint32_t at = 0, end;
    int err = 0;
    for (; at < nr && !err; at = end) {
        while (at < nr && !is_set(mask, at))
            at++;
        for (end = at; end < nr && is_set(mask, end); end++)
            ;
        if (at == end)
            break;
        uint64_t bytes;
        err = uffd_copy(hm->uffd, slot + at * PAGE_BYTES, guest + at * PAGE_BYTES, (end - at) * PAGE_BYTES, &bytes);
        end = at + (uint32_t)(bytes / PAGE_BYTES);
    }
    *done = at;
    return err;
}

static int take_chunk(struct hostmem_vm *vm, char *guest, char *slot, uint32_t nr, uint32_t *done)
{
    uint64_t mask, bytes = nr * PAGE_BYTES;
    *done = 0;
    int err = uffd_protect(vm->uffd, guest, bytes, true);
    if (err)
        return err;
    err = hostmem_present(vm->hm, guest, nr, &mask);
    if (!err)
        err = copy_home(vm->hm, slot, guest, nr, mask, done);
    uint64_t taken = *done * PAGE_BYTES;
    if (taken > 0)
        madvise(guest, taken, MADV_DONTNEED);
    if (err && taken < bytes && uffd_protect(vm->uffd, guest + taken, bytes - taken, false))
        uffd_wake(vm->uffd, guest + taken, bytes - taken);
    return err;
}

int hostmem_copy_take(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    char *guest = hostmem_guest(vm, gfn, nr), *slot = hostmem_slot(vm->hm, fn);
    int err = 0;
    for (*done = 0; *done < nr && !err;) {
        uint32_t step = MIN_OF(nr - *done, HOSTMEM_COPY_PAGES), part;
        err = take_chunk(vm, guest + *done * PAGE_BYTES, slot + *done * PAGE_BYTES, step, &part);
        *done += part;
    }
    return err;
}

int hostmem_copy_place(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done)
{
    char *guest = hostmem_guest(vm, gfn, nr), *slot = hostmem_slot(vm->hm, fn);
    int err = hostmem_node_use(vm->hm, hostmem_node_of(vm->hm, fn));
    for (*done = 0; *done < nr && !err;) {
        uint64_t step = MIN_OF(nr - *done, HOSTMEM_COPY_PAGES) * PAGE_BYTES, bytes;
        err = uffd_copy(vm->uffd, guest + *done * PAGE_BYTES, slot + *done * PAGE_BYTES, step, &bytes);
        if (bytes > 0)
            madvise(slot + *done * PAGE_BYTES, bytes, MADV_DONTNEED);
        *done += (uint32_t)(bytes / PAGE_BYTES);
    }
    return err;
}
