/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Swap areas: slots of one page on a file or block device, slot 0 being Linux's swap header.
 *
 *   swap_set: up to MAX_SWAP_AREAS areas, tried in falling priority, equal priorities in turn (as Linux)
 *   swap_area: use count and checksum per slot; allocation in clusters of 256 slots so that neighbours stay neighbours
 *
 * I/O goes through swap_backend; vmm/swapfile.c implements it with io_uring, tests/fake in memory with injected errors.
 */
#ifndef MM_SWAP_AREA_H
#define MM_SWAP_AREA_H

#include "mm/base/types.h"

#define MAX_SWAP_AREAS 32
#define SWAP_CLUSTER_SLOTS 256u
#define SWAP_MAX_IO 64u /* pages in one swap_write or swap_read */
#define SWAP_NAME_BYTES 256

/* A page in swap. Packs into the 49-bit payload of a stage-2 entry: area 5 bits, slot 40. */
struct swap_ref {
    uint8_t area;
    uint64_t slot;
};
static inline uint64_t swap_ref_pack(struct swap_ref r)
{
    return (r.slot << 5) | r.area;
}
static inline struct swap_ref swap_ref_unpack(uint64_t payload)
{
    return (struct swap_ref){.area = (uint8_t)(payload & 31u), .slot = payload >> 5};
}

struct swap_io {
    uint64_t slot;
    void *page; /* PAGE_BYTES, page aligned */
    int error;  /* out: 0 or -errno for this page */
};

struct swap_backend {
    /* Transfers nr <= SWAP_MAX_IO pages and waits for all; neighbouring slots go as one request. Returns 0 when every
     * error is 0, else the first one. Safe from several threads. */
    int (*transfer)(void *ctx, bool write, struct swap_io *io, unsigned nr);
    /* Slots no longer used, a whole cluster at a time; nobody uses them meanwhile. NULL: not wanted. */
    void (*discard)(void *ctx, uint64_t slot, uint64_t nr);
    void (*close)(void *ctx);
    /* How pages travel, for show: "io_uring, direct". NULL: nothing to say. Lives as long as ctx. */
    const char *(*transport)(void *ctx);
};

struct swap_area_stat {
    char name[SWAP_NAME_BYTES]; /* path as given */
    const char *kind;           /* "file", "partition" */
    char transport[32];         /* as the backend says, or empty */
    int priority;
    bool enabled;
    uint64_t size_bytes, used_bytes;                               /* without the header */
    uint64_t nr_reads, nr_writes, nr_read_errors, nr_write_errors; /* pages; a bad checksum is a read error */
};

struct swap_set;
must_check int swap_set_create(struct swap_set **out);
/* Closes every backend. */
void swap_set_destroy(struct swap_set *set);

/*
 * swap_area_add - @nr_slots slots, 2..2^32, slot 0 not used. @priority -1 for automatic (falling from -2, as Linux).
 * @kind: a constant. The area is enabled.
 * Returns the area number >= 0; -ENOSPC: no room for another; -EEXIST: @name is in use; -ENAMETOOLONG; -EINVAL:
 * nr_slots; -ENOMEM. On error the caller keeps ctx and nothing has changed.
 */
must_check int swap_area_add(struct swap_set *set, const char *name, const char *kind, uint64_t nr_slots, int priority,
                             const struct swap_backend *backend, void *ctx);
/* Area number by name, or -ENOENT. */
must_check int swap_area_find(struct swap_set *set, const char *name);
/* Stops (on = false) or resumes allocation in an area. */
void swap_area_enable(struct swap_set *set, int area, bool on);
/* Removes a disabled area with no slot in use and closes it. -EBUSY otherwise; -ENOENT: no such area. */
must_check int swap_area_remove(struct swap_set *set, int area);

/*
 * swap_alloc - up to @want neighbouring slots of one area, each with use count 1. Returns how many (0: swap is full);
 * *first names the first. An area that refused the whole of its last write is asked when no other has room. Where all the
 * room there is is being discarded, waits for that. No lock held.
 */
unsigned swap_alloc(struct swap_set *set, unsigned want, struct swap_ref *first);
/*
 * Use counts: dup adds one (-EOVERFLOW at 65535), free takes one. A cluster whose last slot comes free is discarded,
 * without the lock, before its slots are used again.
 */
must_check int swap_dup(struct swap_set *set, struct swap_ref ref);
void swap_free(struct swap_set *set, struct swap_ref ref);

/*
 * swap_write - pages[i] goes to slot first.slot + i; its checksum is kept. 1..SWAP_MAX_IO pages.
 * error[i] is 0 or -errno per page; returns 0 when all are 0, else the first error. Slots keep their counts.
 * The caller has a use of every slot until the call returns, and nobody else writes them meanwhile. Takes no lock.
 */
must_check int swap_write(struct swap_set *set, struct swap_ref first, void *const pages[], unsigned nr, int error[]);
/* swap_read - the other way; -EILSEQ for a page whose checksum is wrong. A page with an error is undefined. */
must_check int swap_read(struct swap_set *set, struct swap_ref first, void *const pages[], unsigned nr, int error[]);

uint64_t swap_nr_free(struct swap_set *set); /* slots, enabled areas only */
/* An enabled area has a free slot, and did not refuse the whole of its last write, as a full disk does. */
bool swap_is_writable(struct swap_set *set);
/* Areas that refused count as writable until they refuse again. */
void swap_try_again(struct swap_set *set);
unsigned swap_stat(struct swap_set *set, struct swap_area_stat *out, unsigned max);
/* Memory of the slot maps, as far as it was ever used: 6.2 bytes a slot in steps of 256 slots. */
uint64_t swap_metadata_bytes(struct swap_set *set);
/* No other thread may be in the set. */
bool swap_check(struct swap_set *set, const char **why);

/* --- the header in slot 0 (include/linux/swap.h, union swap_header; version 1) --- */
/*
 * swap_header_make - fills @page (PAGE_BYTES) for an area of @nr_slots slots, 2..2^32, with @uuid and @label (cut to 15
 * bytes; may be NULL).
 */
void swap_header_make(void *page, uint64_t nr_slots, const uint8_t uuid[16], const char *label);
/*
 * swap_header_read - *nr_slots of the header. -EINVAL: not a swap header, or of another version or page size;
 * -EBUSY: a hibernated system is in it; -ENOTSUP: it lists bad pages.
 */
must_check int swap_header_read(const void *page, uint64_t *nr_slots);

#endif
