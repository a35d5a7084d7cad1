/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Heat maps: for each VM how much of each row of its memory was touched in each column of time. At most 512 by 512 cells
 * of a byte, whatever the size of the VM and the length of the run.
 */
#include "mm/policy/access_note.h"

#include <stdlib.h>
#include <string.h>

/*
 * A column is a quarter of a second at first, and no shorter than a thousand times what it takes to fill: that is not
 * counted against the quota.
 */
#define COLUMN_NS UINT64_C(250000000)
#define COLUMN_NS_PER_BLOCK UINT64_C(100000) /* 100 ns a block, chosen: a lock, an entry, a panel */

struct access_history {
    uint64_t start_ns, column_ns;
    uint64_t begin_ns; /* of the column that is not full yet; the scanner's own */
    uint32_t nr_rows, nr_columns, blocks_per_row;
    uint8_t *cells; /* guarded by access.lock, as are start_ns, column_ns and nr_columns: row after row */
};

static int64_t cells_bytes(const struct access_history *history)
{
    return (int64_t)history->nr_rows * ACCESS_MAP_COLUMNS;
}

void access_history_free(struct mm_vm *vm)
{
    if (!vm->history)
        return;
    counter_add(&vm->host->access_bytes, -cells_bytes(vm->history));
    free(vm->history->cells);
    free(vm->history);
    vm->history = NULL;
}

static uint32_t rows_of(const struct mm_vm *vm, unsigned region, uint32_t blocks_per_row)
{
    uint64_t nr = vm->regions[region].bytes >> BLOCK_SHIFT;
    return (uint32_t)((nr + blocks_per_row - 1) / blocks_per_row);
}

static uint32_t all_rows(const struct mm_vm *vm, uint32_t blocks_per_row)
{
    uint32_t nr = 0;
    for (unsigned r = 0; r < vm->nr_regions; r++)
        nr += rows_of(vm, r, blocks_per_row);
    return nr;
}

static struct access_history *history_create(const struct mm_vm *vm, uint64_t now_ns)
{
    struct access_history *history = calloc(1, sizeof(*history));
    if (!history)
        return NULL;
    uint64_t nr = access_nr_blocks(vm);
    history->blocks_per_row = (uint32_t)((nr + ACCESS_MAP_ROWS - 1) / ACCESS_MAP_ROWS);
    while (all_rows(vm, history->blocks_per_row) > ACCESS_MAP_ROWS)
        history->blocks_per_row++;
    history->nr_rows = all_rows(vm, history->blocks_per_row);
    history->column_ns = MAX_OF(COLUMN_NS, nr * COLUMN_NS_PER_BLOCK);
    /* what was touched before the first look, since the VM was made, is in the first column */
    history->start_ns = history->begin_ns = MAX_OF(vm->born_ns, now_ns - MIN_OF(now_ns, history->column_ns));
    history->cells = malloc((size_t)cells_bytes(history));
    if (!history->cells) {
        free(history);
        return NULL;
    }
    counter_add(&vm->host->access_bytes, cells_bytes(history));
    return history;
}

/* ---- what was touched since the column began ---- */

/* Of a row, in the column's time. */
struct row_tally {
    uint64_t since_ns, now_ns;
    unsigned nr_blocks;           /* in which anything was ever touched */
    double touched, idle, unseen; /* pages in the guest: known to be touched, not to be, and nobody has looked */
};

/* @pages in the guest that stand for @watch. */
static void add_watched(struct row_tally *tally, double pages, const struct access_watch *watch)
{
    if (access_last(watch, tally->now_ns) >= tally->since_ns)
        tally->touched += pages;
    else if (access_is_unseen(watch))
        tally->unseen += pages;
    else
        tally->idle += pages;
}

static void add_table(struct row_tally *tally, struct block *block)
{
    unsigned out, nr = access_check_panel(block, &out);
    double came = tally->touched + block->access.nr_came;
    for (unsigned i = 0; i < access_panel_size(&block->access); i++) {
        const struct access_watch *watch = &block->access.panel[i];
        if (watch->used)
            add_watched(tally, (double)(block->nr_resident + out) / nr, watch);
    }
    if (nr == 0)
        tally->unseen += block->nr_resident;
    tally->touched = MAX_OF(tally->touched, came);
}

static void add_block(struct row_tally *tally, struct block *block)
{
    lock_acquire(&block->lock);
    uint8_t state = pmd_read(block).state;
    tally->nr_blocks += state == S2_RESIDENT || state == S2_STANDBY || state == S2_TABLE;
    if (state == S2_RESIDENT || state == S2_STANDBY)
        add_watched(tally, BLOCK_PAGES, &block->access.whole);
    else if (state == S2_TABLE)
        add_table(tally, block);
    block->access.nr_came = 0;
    lock_release(&block->lock);
}

/* One row's part of the column: of what was ever touched there, in blocks. */
static uint8_t make_cell(struct block *blocks, uint64_t nr, uint64_t since_ns, uint64_t now_ns)
{
    struct row_tally tally = {.since_ns = since_ns, .now_ns = now_ns};
    for (uint64_t i = 0; i < nr; i++)
        add_block(&tally, &blocks[i]);
    if (tally.nr_blocks == 0)
        return ACCESS_CELL_NEVER;
    /* a little is not nothing */
    if (tally.touched > 0)
        return (uint8_t)MIN_OF(MAX_OF(ACCESS_CELL_FULL * tally.touched / (tally.nr_blocks * (double)BLOCK_PAGES), 1.0),
                               (double)ACCESS_CELL_FULL);
    return tally.unseen > tally.idle ? ACCESS_CELL_UNSEEN : 0;
}

static void make_column(const struct mm_vm *vm, uint64_t since_ns, uint64_t now_ns, uint8_t column[ACCESS_MAP_ROWS])
{
    const uint32_t step = vm->history->blocks_per_row;
    unsigned row = 0;
    for (unsigned r = 0; r < vm->nr_regions; r++) {
        uint64_t nr = vm->regions[r].bytes >> BLOCK_SHIFT;
        for (uint64_t i = 0; i < nr; i += step)
            column[row++] = make_cell(&vm->blocks[r][i], MIN_OF(nr - i, (uint64_t)step), since_ns, now_ns);
    }
}

/* ---- cells; access.lock is held ---- */

/* What is known stands for what is not. */
static uint8_t join(uint8_t a, uint8_t b)
{
    _Static_assert(ACCESS_CELL_FULL < ACCESS_CELL_UNSEEN && ACCESS_CELL_UNSEEN < ACCESS_CELL_NEVER, "known first");
    if (MAX_OF(a, b) > ACCESS_CELL_FULL)
        return MIN_OF(a, b);
    return (uint8_t)((a + b + 1) / 2);
}

static void halve(struct access_history *history)
{
    for (uint32_t row = 0; row < history->nr_rows; row++) {
        uint8_t *cells = &history->cells[(size_t)row * ACCESS_MAP_COLUMNS];
        for (unsigned i = 0; i < ACCESS_MAP_COLUMNS / 2; i++)
            cells[i] = join(cells[2 * i], cells[2 * i + 1]);
    }
    history->nr_columns /= 2;
    history->column_ns *= 2;
}

static void put_column(struct access_history *history, const uint8_t column[ACCESS_MAP_ROWS])
{
    for (uint32_t row = 0; row < history->nr_rows; row++)
        history->cells[(size_t)row * ACCESS_MAP_COLUMNS + history->nr_columns] = column[row];
    history->nr_columns++;
}

/* ---- */

void access_history_note(struct mm_vm *vm, uint64_t now_ns)
{
    struct mm_lock *lock = &vm->host->access->lock;
    struct access_history *history = vm->history;
    uint8_t column[ACCESS_MAP_ROWS];
    if (!history) {
        /* without memory there is no map yet */
        history = history_create(vm, now_ns);
        lock_acquire(lock);
        vm->history = history;
        lock_release(lock);
        return;
    }
    if (now_ns - history->begin_ns < history->column_ns)
        return;
    make_column(vm, history->begin_ns, now_ns, column);
    lock_acquire(lock);
    /* a scanner that was late fills as many as it missed with what it knows of all that time */
    while (now_ns - history->begin_ns >= history->column_ns) {
        if (history->nr_columns == ACCESS_MAP_COLUMNS) {
            halve(history);
            continue; /* the longer column may not be over yet */
        }
        put_column(history, column);
        history->begin_ns += history->column_ns;
    }
    lock_release(lock);
}

static void name_rows(const struct mm_vm *vm, uint32_t blocks_per_row, struct access_map *out)
{
    unsigned row = 0;
    for (unsigned r = 0; r < vm->nr_regions; r++)
        for (uint64_t at = 0; at < vm->regions[r].bytes; at += blocks_per_row * BLOCK_BYTES, row++) {
            out->row_start[row] = (gpa_t){vm->regions[r].start.v + at};
            out->row_bytes[row] = MIN_OF(vm->regions[r].bytes - at, blocks_per_row * BLOCK_BYTES);
        }
}

void access_map(struct mm_vm *vm, struct access_map *out)
{
    struct mm_host *host = vm->host;
    out->nr_rows = out->nr_columns = 0;
    out->column_ns = out->age_ns = 0;
    lock_acquire(&host->access->lock);
    const struct access_history *history = vm->history;
    if (history) {
        out->nr_rows = history->nr_rows;
        out->nr_columns = history->nr_columns;
        out->column_ns = history->column_ns;
        for (uint32_t row = 0; row < history->nr_rows; row++)
            memcpy(out->cell[row], &history->cells[(size_t)row * ACCESS_MAP_COLUMNS], history->nr_columns);
        name_rows(vm, history->blocks_per_row, out);
        out->age_ns = host->ops->clock_ns(host->ops_ctx) - history->start_ns;
    }
    lock_release(&host->access->lock);
}
