/* SPDX-License-Identifier: Apache-2.0 */
/*
 * access: how hot guest memory is, and how long it has been idle. Ebb has no accessed bits; what there is:
 *
 *   refault   a page that is at home as standby, or stored, is seen when it is touched: it faults
 *   sample    the scanner takes pages home for that alone: a 2 MiB frame whole, about a microsecond; of a block of single
 *             pages a panel of ACCESS_PANEL, drawn by lot, which stand for the others
 *   source    the kernel's own means, where it has any (mm/policy/access_source.h), instead of samples
 *
 *             look: armed ------- touched: the access is seen, wait = touched - armed --------> next look
 *               \___ untouched at the next look: idle, stays armed, costs nothing more
 *
 * Between an access and the next look nothing is known. What came back after `wait` is taken to be touched that often
 * still; what is armed is idle since its last known access.
 *
 * Quota: samples cost the scanner's time and the faults' time, in mm/ and in the thread that serves them (what it costs a
 * vCPU to leave its guest and come back is not known here). Both are measured; a look is paid for, with the fault that it may bring, before it is taken, from a purse that fills by the quota and holds what comes in
 * in a fifth of a second:
 *
 *   time spent on samples <= quota * (time + 0.2 s) + the faults of memory that was idle and is not any more
 *
 * What a round costs whatever it finds is no more than an eighth of the quota: where that is so small that a round each
 * 0.1 s would cost more, rounds are rarer, up to a minute apart, and the purse holds what comes in between two.
 *
 * A sampled page that comes back has the age that it had: it did not survive anything. One that is never touched again is
 * a standby page like others. Nothing is sampled while stored pages come back as soon as they are stored, nor where
 * what is taken could not be given back as it was; blocks with pins are passed over.
 */
#ifndef MM_POLICY_ACCESS_H
#define MM_POLICY_ACCESS_H

#include "mm/policy/access_source.h"

struct mm_host;
struct mm_thread;
struct mm_vm;

/* One percent of one CPU. */
#define ACCESS_QUOTA_DEFAULT_MPCT 1000u
#define ACCESS_QUOTA_MAX_MPCT 100000u

/*
 * access_configure - @quota_mpct: thousandths of a percent of one CPU for samples, 0: none, at most ACCESS_QUOTA_MAX_MPCT.
 * @source: NULL for refaults and samples; outlives the scanner. Counts from the next round on.
 */
void access_configure(struct mm_host *host, uint32_t quota_mpct, const struct access_source *source);

/*
 * access_scan - one round of the scanner, one caller at a time: looks at blocks in turn as far as the quota goes, asks
 * the source, notes a column of the heat map when it is due. Returns ms until the next round. Takes block locks.
 */
unsigned access_scan(struct mm_thread *thread);

struct access_stat {
    const char *source;               /* "refault", or the source that is asked */
    int source_err;                   /* -errno of a source that broke; 0 */
    double quota_pct, sample_cpu_pct; /* of one CPU; what the last ten seconds took, or the time since the start */
    uint64_t sample_ns;               /* all time that samples took */
    uint64_t nr_samples;              /* frames and pages taken home to see whether they are touched */
    uint64_t nr_hits;                 /* of these, touched before the next look */
    uint64_t nr_late_hits;            /* touched after it */
};
void access_stat(struct mm_host *host, struct access_stat *out);

#define ACCESS_IDLE_STEPS 20u
#define ACCESS_NR_WINDOWS 4u
extern const uint32_t access_windows_s[ACCESS_NR_WINDOWS];

/* Figures of a VM, or sums of several. All in bytes; they are estimates for what is in the guest in single pages. */
struct access_idle {
    uint64_t memory_bytes;                  /* unplugged memory left out */
    uint64_t never_bytes;                   /* never touched, given up, or in the balloon */
    uint64_t idle_bytes[ACCESS_IDLE_STEPS]; /* touched once, but not for at least 2^i seconds; of what was looked at */
    uint64_t unwatched_bytes;               /* in the guest, and never looked at: nobody knows since it came in */
    struct {
        uint64_t bytes;      /* in the guest, and known or thought to be touched within access_windows_s[i] */
        double variance;     /* of it, bytes squared; sampling error of independent blocks: adds up */
        uint64_t left_bytes; /* left the guest within it: may have been touched before that, within it */
    } working_set[ACCESS_NR_WINDOWS];
};
/* Walks the tables of the VM; takes block locks. The caller keeps the VM. */
void access_idle(struct mm_vm *vm, struct access_idle *out);
/* *into += *from. */
void access_idle_add(struct access_idle *into, const struct access_idle *from);
/* Two standard deviations, bytes. */
uint64_t access_error_bytes(double variance);

#define ACCESS_MAP_ROWS 512u
#define ACCESS_MAP_COLUMNS 512u
#define ACCESS_CELL_FULL 250u   /* all of the row was touched in the column's time */
#define ACCESS_CELL_UNSEEN 254u /* most of it was never looked at, and none is known to be touched */
#define ACCESS_CELL_NEVER 255u  /* none of it ever was */

/* The heat map: when its columns are used up, pairs of them become one, and each takes twice as long. */
struct access_map {
    uint32_t nr_rows, nr_columns;
    uint64_t column_ns;
    uint64_t age_ns; /* from the begin of the first column until now */
    gpa_t row_start[ACCESS_MAP_ROWS];
    uint64_t row_bytes[ACCESS_MAP_ROWS];
    uint8_t cell[ACCESS_MAP_ROWS][ACCESS_MAP_COLUMNS]; /* 0..ACCESS_CELL_FULL, _UNSEEN, _NEVER */
};
/* access_map - *out is filled; no columns before the scanner has run for the time of one. The caller keeps the VM. */
void access_map(struct mm_vm *vm, struct access_map *out);

#endif
