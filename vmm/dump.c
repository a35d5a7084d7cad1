/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/dump.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_PAGES 64u /* read, then written as one run where no page is left out */
_Static_assert(BLOCK_PAGES % CHUNK_PAGES == 0, "a chunk is plugged as a whole, or not at all");
#define DATA_ALIGN UINT64_C(4096)

struct dump {
    const struct dump_config *config;
    int fd;
    const char *path;
    struct dump_stat *stat;
    struct diag *diag;
    char *chunk; /* CHUNK_PAGES pages */
};

static int write_all(const struct dump *d, const void *from, uint64_t bytes, uint64_t at)
{
    const char *next = from;

    while (bytes > 0) {
        ssize_t nr = pwrite(d->fd, next, bytes, (off_t)at);
        if (nr < 0 && errno == EINTR)
            continue;
        if (nr <= 0)
            return diag_set(d->diag, EXIT_GUEST, "%.200s cannot be written: %s", d->path,
                            strerror(nr < 0 ? errno : EIO));
        next += nr;
        at += (uint64_t)nr;
        bytes -= (uint64_t)nr;
    }
    return 0;
}

int dump_read_page(struct mm_thread *thread, struct mm_vm *vm, const struct guest_mem *mem, gfn_t gfn, char *page,
                   bool *zeros)
{
    enum mm_peek where;
    int err = mm_peek(thread, vm, gpa_of(gfn), &where, page);

    if (!err && where == MM_PEEK_RESIDENT)
        err = guest_mem_read(mem, gpa_of(gfn), page, PAGE_BYTES);
    if (!err)
        *zeros = where == MM_PEEK_ZERO || where == MM_PEEK_NOTHING ||
                 (*page == 0 && memcmp(page, page + 1, PAGE_BYTES - 1) == 0);
    return err;
}

static bool is_free(const struct dump_config *config, gfn_t gfn)
{
    return config->free_pages && gfn < config->nr_free_bits && config->free_pages[gfn / 64] >> (gfn % 64) & 1;
}

/* 1: the page is in @to; 0: it is a hole; -1 with diag. */
static int read_page(struct dump *d, gfn_t gfn, char *to)
{
    const struct dump_config *config = d->config;
    bool zeros;

    if (is_free(config, gfn)) {
        d->stat->free_bytes += PAGE_BYTES;
        return 0;
    }
    int err = dump_read_page(config->thread, config->vm, config->mem, gfn, to, &zeros);
    if (err)
        return diag_set(d->diag, EXIT_GUEST, "page gpa 0x%" PRIx64 " cannot be read: %s", gpa_of(gfn).v,
                        strerror(-err));
    if (zeros) {
        d->stat->zero_bytes += PAGE_BYTES;
        return 0;
    }
    d->stat->written_bytes += PAGE_BYTES;
    return 1;
}

/* Pages [gfn, gfn + nr) to the file from @at on, in runs. */
static int write_chunk(struct dump *d, gfn_t gfn, uint32_t nr, uint64_t at)
{
    uint32_t run = 0; /* pages before i that are not written yet */

    /* not plugged: there may be 256 GiB of it, and the guest waits */
    if (!guest_mem_hva(d->config->mem, gpa_of(gfn), nr * PAGE_BYTES)) {
        d->stat->zero_bytes += nr * PAGE_BYTES;
        return 0;
    }
    for (uint32_t i = 0; i <= nr; i++) {
        int got = i < nr ? read_page(d, gfn + i, d->chunk + i * PAGE_BYTES) : 0;
        if (got < 0)
            return -1;
        if (got) {
            run++;
            continue;
        }
        uint64_t start = i - run;
        if (run > 0 && write_all(d, d->chunk + start * PAGE_BYTES, run * PAGE_BYTES, at + start * PAGE_BYTES))
            return -1;
        run = 0;
    }
    return 0;
}

/* 0, or -1 with diag: the machine has been told to end. Pages that were read since may be those it got instead of its own. */
static int go_on(const struct dump *d)
{
    if (!d->config->stop || !atomic_load(d->config->stop))
        return 0;
    return diag_set(d->diag, EXIT_GUEST, "%.200s was not written: the run is over", d->path);
}

static int write_region(struct dump *d, const struct guest_mem_region *region, uint64_t at)
{
    gfn_t gfn = gfn_of(region->start);

    for (uint64_t left = region->bytes / PAGE_BYTES; left > 0;) {
        uint32_t nr = (uint32_t)MIN_OF(left, (uint64_t)CHUNK_PAGES);
        if (write_chunk(d, gfn, nr, at) || go_on(d))
            return -1;
        gfn += nr;
        left -= nr;
        at += nr * PAGE_BYTES;
    }
    return 0;
}

static int write_headers(const struct dump *d, uint64_t *end)
{
    const struct guest_mem *mem = d->config->mem;
    Elf64_Ehdr head = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_CORE,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_phoff = sizeof(head),
        .e_ehsize = sizeof(head),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = (Elf64_Half)mem->nr,
    };

    *end = DATA_ALIGN;
    for (unsigned i = 0; i < mem->nr; i++) {
        const struct guest_mem_region *region = &mem->region[i];
        const Elf64_Phdr load = {
            .p_type = PT_LOAD,
            .p_flags = PF_R | PF_W | PF_X,
            .p_offset = *end,
            .p_paddr = region->start.v,
            .p_filesz = region->bytes,
            .p_memsz = region->bytes,
            .p_align = DATA_ALIGN,
        };

        *end += region->bytes;
        if (write_all(d, &load, sizeof(load), sizeof(head) + i * sizeof(load)))
            return -1;
    }
    return write_all(d, &head, sizeof(head), 0);
}

static int write_file(struct dump *d)
{
    const struct guest_mem *mem = d->config->mem;
    uint64_t end, at = DATA_ALIGN;

    if (write_headers(d, &end))
        return -1;
    for (unsigned i = 0; i < mem->nr; i++) {
        if (write_region(d, &mem->region[i], at))
            return -1;
        at += mem->region[i].bytes;
        d->stat->memory_bytes += mem->region[i].bytes;
    }
    /* the last hole */
    if (ftruncate(d->fd, (off_t)end))
        return diag_set(d->diag, EXIT_GUEST, "%.200s cannot be written: %s", d->path, strerror(errno));
    return 0;
}

int dump_write(const struct dump_config *config, int fd, const char *path, struct dump_stat *stat, struct diag *diag)
{
    struct dump d = {.config = config, .fd = fd, .path = path, .stat = stat, .diag = diag};

    *stat = (struct dump_stat){0};
    if (go_on(&d))
        return -1;
    d.chunk = aligned_alloc(PAGE_BYTES, CHUNK_PAGES * PAGE_BYTES);
    if (!d.chunk)
        return diag_set(diag, EXIT_GUEST, "out of memory");
    int err = write_file(&d);
    free(d.chunk);
    return err;
}
