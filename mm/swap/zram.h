/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zram: the compressed store in RAM. A stored page is named by a payload of ZRAM_PAYLOAD_BITS that its stage-2
 * entry keeps.
 *
 *   bit 0 = 1: same-filled page, no storage: bits 48..1 are the repeated 64-bit word, sign-extended from 48 bits
 *   bit 0 = 0: an object in the size-class allocator (zpool): place in the arena in units of 16 bytes, shifted left by
 * 1
 *
 * A same-filled word that does not fit in 48 bits is an object of 8 bytes of data. Every object has a header: owner
 * (vm, gfn), length and a checksum of the data, so that compaction finds the entry and a bad object is never returned.
 * Pages come from the caller's pool through zram_pages and count in the budget.
 */
#ifndef MM_SWAP_ZRAM_H
#define MM_SWAP_ZRAM_H

#include "mm/frame/frame.h"

#define ZRAM_PAYLOAD_BITS 49

enum zram_algo { ZRAM_LZ4, ZRAM_ZSTD };

struct zram_pages {
    /* A filled run of 2^order frames, order 0..2. 0 or -ENOMEM. The store marks the head FRAME_ZPOOL, and FRAME_USED
     * again before put(); the rest of the run keeps its use. Both are called with no store lock held. */
    int (*get)(void *ctx, unsigned order, fn_t *out);
    void (*put)(void *ctx, fn_t fn, unsigned order);
    void *ctx;
    char *arena;          /* address of slot 0 */
    struct frame *frames; /* by fn; data, data16, next and prev are the store's own while a frame is its own */
};

struct zram_config {
    enum zram_algo algo;
    int level;            /* zstd level 1..19, 0 for the default (1); lz4: acceleration 1..65537, 0 for 1 */
    uint64_t limit_bytes; /* of pool pages; 0: no store at all */
};

/* Linux's mm_stat, same meaning and order. Bytes, or pages where the name says so. */
struct zram_stat {
    uint64_t orig_data_bytes;  /* uncompressed size of what is stored, same-filled pages included */
    uint64_t compr_data_bytes; /* compressed data, headers left out */
    uint64_t mem_used_bytes;   /* pool pages */
    uint64_t mem_limit_bytes;
    uint64_t mem_used_max_bytes;
    uint64_t same_pages; /* same-filled and without storage */
    uint64_t pages_compacted;
    uint64_t huge_pages;   /* stores refused as incompressible */
    uint64_t failed_reads; /* checksum or decoder refused */
};

struct zram;
/* Compressor state of one thread: hash tables, bounce buffer. */
struct zram_thread;

/* -EINVAL: no such algorithm or level, or a limit below one page; -ENOMEM. */
must_check int zram_create(const struct zram_config *config, const struct zram_pages *pages, struct zram **out);
/* Everything stored is forgotten; all frames go back. Threads of the store may outlive it. NULL is fine, for both. */
void zram_destroy(struct zram *zram);
must_check int zram_thread_create(const struct zram *zram, struct zram_thread **out);
void zram_thread_destroy(struct zram_thread *thread);

/*
 * zram_store - keep the content of @page (PAGE_BYTES, only read) for guest page (vm, gfn); vm is not 0.
 * Returns 0 and *payload; -E2BIG: does not compress below 3/4 of a page (Linux's huge class rule); -ENOSPC: limit
 * reached; -ENOMEM: the pool has no page. After an error the store is unchanged but for its counters. Where the pool
 * has single pages but no runs, objects of up to half a page are still taken.
 */
must_check int zram_store(struct zram *zram, struct zram_thread *thread, vmid_t vm, gfn_t gfn, const void *page,
                          uint64_t *payload);

/*
 * zram_load - the page again, into @page (PAGE_BYTES). The object stays stored. The caller holds whatever keeps the
 * payload from being freed or moved (the owner's block lock): takes no lock itself.
 * Returns 0; -EIO: checksum, length or decoder refused, *page is undefined.
 */
must_check int zram_load(struct zram *zram, struct zram_thread *thread, uint64_t payload, void *page);

/* Forget the object. Takes LOCK_ZRAM. */
void zram_free(struct zram *zram, uint64_t payload);

/* True for a same-filled payload: *word is repeated over the page. */
bool zram_is_same(uint64_t payload, uint64_t *word);

/*
 * zram_compact - empty the sparsest pages of each class by moving their objects.
 * @relocate: called without store locks for an object of (vm, gfn): if that page's entry still holds @payload, under
 *   its lock, calls zram_move(zram, payload) and puts the result into the entry; returns 0, or -EAGAIN to leave it
 *   (lock busy).
 * Stops after @max_pages pages came free (up to three more, if the last run was a large one), and leaves a class when
 * one of its pages could not be emptied. One caller at a time. Returns pages freed.
 */
uint32_t zram_compact(struct zram *zram, int (*relocate)(void *ctx, vmid_t vm, gfn_t gfn, uint64_t payload), void *ctx,
                      uint32_t max_pages);
/* For relocate: the payload of a copy in a fuller page, the old object freed; @payload itself when there is no better
 * place. */
uint64_t zram_move(struct zram *zram, uint64_t payload);

void zram_stat(const struct zram *zram, struct zram_stat *out);
/* One row per size class, for show. Returns rows filled, at most @max. */
struct zram_class_stat {
    uint32_t object_bytes, nr_objects, nr_used, nr_pages;
};
unsigned zram_class_stat(struct zram *zram, struct zram_class_stat *out, unsigned max);
const char *zram_algo_name(enum zram_algo algo);
bool zram_check(struct zram *zram, const char **why);

#endif
