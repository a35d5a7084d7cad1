/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps. fill, verify, stream and churn divide the pages among the vCPUs; in zipf every vCPU goes to every page,
 * so a page's slot is locked while it is checked or rewritten: no false alarm.
 *
 * A read of zipf and stream looks at the header and a sample: what it costs is the page's presence, not the checking.
 * A write makes a new generation and rewrites all 4096 bytes.
 */
#include "guest-images/ebbguest/gate.h"
#include "guest-images/ebbguest/kernel.h"

#define PROGRESS_MASK 255 /* the host sees every 256th operation */
#define SPINS 1000        /* tries for a page before the host is asked to run someone else; chosen, unmeasured */
#define LINE_WORDS 8      /* 64 bytes */
#define IDLE_SLICE_MS 100
#define CHURN_PAGES 64 /* longest run */

struct range {
    uint32_t from, to;
};

static const char *const bad_names[EBB_NR_BAD_KINDS] = {
    [EBB_BAD_STALE] = "stale",
    [EBB_BAD_LOST] = "lost",
    [EBB_BAD_TORN] = "torn",
    [EBB_BAD_SWAPPED] = "swapped-over",
};

static void count(uint64_t *counter, uint64_t nr)
{
    __atomic_store_n(counter, *counter + nr, __ATOMIC_RELAXED); /* the host reads it at any time */
}

static void show_progress(struct cpu *cpu, uint64_t done)
{
    if ((done & PROGRESS_MASK) == 0)
        __atomic_store_n(&cpu->shared->done, done, __ATOMIC_RELAXED);
}

/* This vCPU's part of nr things. */
static uint64_t share_start(const struct cpu *cpu, uint32_t number, uint64_t nr)
{
    return nr * number / cpu->k->nr_cpus;
}

/* That of vCPU @number. */
static struct range page_share_of(const struct cpu *cpu, uint32_t number, const struct ebb_step *step)
{
    return (struct range){
        step->start_pages + (uint32_t)share_start(cpu, number, step->size_pages),
        step->start_pages + (uint32_t)share_start(cpu, number + 1, step->size_pages),
    };
}

static struct range page_share(const struct cpu *cpu, const struct ebb_step *step)
{
    return page_share_of(cpu, cpu->number, step);
}

static uint64_t op_share(const struct cpu *cpu, uint64_t ops)
{
    return share_start(cpu, cpu->number + 1, ops) - share_start(cpu, cpu->number, ops);
}

/* --- pages ----------------------------------------------------------------------------------------- */

static void lock_slot(const struct cpu *cpu, struct page_slot *slot)
{
    if (cpu->k->nr_cpus == 1)
        return;
    /* Acquire: partner is the release in unlock_slot. */
    for (unsigned tries = 1; __atomic_exchange_n(&slot->lock, 1, __ATOMIC_ACQUIRE); tries++) {
        __builtin_ia32_pause();
        if (tries % SPINS == 0)
            gate(GATE_OUT, EBB_PORT_YIELD, 0); /* its holder may wait for the page to come back */
    }
}

static void unlock_slot(const struct cpu *cpu, struct page_slot *slot)
{
    if (cpu->k->nr_cpus != 1)
        __atomic_store_n(&slot->lock, 0, __ATOMIC_RELEASE);
}

static struct page_id slot_id(const struct cpu *cpu, const struct page_slot *slot)
{
    return (struct page_id){
        .gfn = slot->gfn, .generation = slot->generation, .pattern = slot->pattern, .seed = cpu->k->seed};
}

static void write_slot(const struct cpu *cpu, struct page_slot *slot)
{
    slot->pattern &= (uint8_t)~SLOT_BAD;
    slot->generation = (uint16_t)(slot->generation + 1);
    if (slot->generation == 0)
        slot->generation = 1;
    struct page_id id = slot_id(cpu, slot);
    page_write(page_address(slot->gfn), &id);
}

static void report_bad(struct cpu *cpu, struct page_slot *slot, const struct ebb_bad *bad)
{
    uint64_t nr = cpu->shared->nr_bad;

    slot->pattern |= SLOT_BAD;
    if (nr < EBB_BAD_RECORDS) {
        cpu->shared->bad[nr] = *bad;
        cpu->shared->bad[nr].step = cpu->step;
        if (bad->kind == EBB_BAD_SWAPPED)
            print_line(cpu, "page gpa 0x%lx: expected generation %u, found generation %u of page gpa 0x%lx: %s",
                       (uint64_t)bad->gfn << PAGE_SHIFT, bad->expected_generation, bad->found_generation,
                       (uint64_t)bad->found_gfn << PAGE_SHIFT, bad_names[bad->kind]);
        else
            print_line(cpu, "page gpa 0x%lx: expected generation %u, found %u: %s", (uint64_t)bad->gfn << PAGE_SHIFT,
                       bad->expected_generation, bad->found_generation, bad_names[bad->kind]);
    }
    count(&cpu->shared->nr_bad, 1);
}

static void check_slot(struct cpu *cpu, struct page_slot *slot)
{
    struct page_id id = slot_id(cpu, slot);
    struct ebb_bad bad;

    if (!(slot->pattern & SLOT_BAD) && !page_check(page_address(slot->gfn), &id, &bad))
        report_bad(cpu, slot, &bad);
}

static void check_slot_quick(struct cpu *cpu, struct page_slot *slot)
{
    struct page_id id = slot_id(cpu, slot);
    struct ebb_bad bad;

    if (!(slot->pattern & SLOT_BAD) &&
        !page_check_quick(page_address(slot->gfn), &id, (uint32_t)rng_next(&cpu->rng), &bad))
        report_bad(cpu, slot, &bad);
}

static bool draw_write(struct cpu *cpu, const struct ebb_step *step)
{
    return step->write_pct > 0 && rng_below(&cpu->rng, 100) < step->write_pct;
}

/* --- steps ----------------------------------------------------------------------------------------- */

static void run_fill(struct cpu *cpu, const struct ebb_step *step)
{
    struct range share = page_share(cpu, step);

    for (uint32_t i = share.from; i < share.to; i++) {
        struct page_slot *slot = &cpu->k->slots[i];

        slot->pattern = pattern_of(step->pattern, i);
        write_slot(cpu, slot);
        show_progress(cpu, i + 1 - share.from);
    }
    count(&cpu->shared->nr_pages, share.to - share.from);
}

static void run_verify(struct cpu *cpu, const struct ebb_step *step)
{
    struct range share = page_share(cpu, step);

    for (uint32_t i = share.from; i < share.to; i++) {
        check_slot(cpu, &cpu->k->slots[i]);
        show_progress(cpu, i + 1 - share.from);
    }
    count(&cpu->shared->nr_pages, share.to - share.from);
    count(&cpu->shared->nr_verified, share.to - share.from);
}

/* What a program does between its accesses: @rounds, each of a few ns, that wait for one another. */
static void compute(uint32_t rounds)
{
    for (uint64_t x = rounds; rounds > 0; rounds--) {
        x = mix64(x);
        __asm__ volatile("" : "+r"(x)); /* it is not left out */
    }
}

static void run_zipf(struct cpu *cpu, const struct ebb_step *step)
{
    uint64_t ops = op_share(cpu, step->ops);

    for (uint64_t i = 0; i < ops; i++) {
        compute(step->work);
        uint32_t rank = zipf_sample(&cpu->k->zipf, &cpu->rng);
        uint32_t page = step->linear ? rank : scatter(rank, step->size_pages, step->seed);
        struct page_slot *slot = &cpu->k->slots[step->start_pages + page];

        lock_slot(cpu, slot);
        if (draw_write(cpu, step))
            write_slot(cpu, slot);
        else
            check_slot_quick(cpu, slot);
        unlock_slot(cpu, slot);
        show_progress(cpu, i + 1);
    }
    count(&cpu->shared->nr_ops, ops);
}

/* One word of every cache line. */
static void read_lines(uint32_t gfn)
{
    const volatile uint64_t *page = page_address(gfn);

    for (unsigned i = 0; i < PAGE_WORDS; i += LINE_WORDS)
        (void)page[i];
}

static void run_stream(struct cpu *cpu, const struct ebb_step *step)
{
    uint32_t of = (uint32_t)(((uint64_t)cpu->number + step->turn) % cpu->k->nr_cpus);
    struct range share = page_share_of(cpu, of, step);
    uint32_t period = step->take_pages + step->skip_pages;
    uint64_t done = 0, touched = 0;

    for (uint32_t pass = 0; pass < step->passes; pass++) {
        for (uint32_t i = share.from; i < share.to; i++) {
            struct page_slot *slot = &cpu->k->slots[i];

            show_progress(cpu, ++done);
            if ((i - step->start_pages) % period >= step->take_pages)
                continue;
            touched++;
            read_lines(slot->gfn);
            if (draw_write(cpu, step))
                write_slot(cpu, slot);
            else
                check_slot_quick(cpu, slot);
        }
    }
    count(&cpu->shared->nr_pages, touched);
}

static void run_idle(struct cpu *cpu, const struct ebb_step *step)
{
    uint64_t ms = step->ns / 1000000;

    if (cpu->number != 0)
        return;
    for (uint64_t done = 0; done < ms;) {
        uint64_t slice = MIN_OF(ms - done, (uint64_t)IDLE_SLICE_MS);

        gate(GATE_OUT, EBB_PORT_IDLE, slice);
        done += slice;
        __atomic_store_n(&cpu->shared->done, done, __ATOMIC_RELAXED);
    }
}

static void run_free(struct cpu *cpu, const struct ebb_step *step)
{
    if (cpu->number != 0)
        return;
    memory_give(cpu->k, step->start_pages, step->start_pages + step->size_pages);
    cpu->k->nr_filled = step->start_pages;
    count(&cpu->shared->nr_pages, step->size_pages);
}

static void refill(struct cpu *cpu, struct range run)
{
    memory_refill(cpu->k, cpu->node, run.from, run.to);
    for (uint32_t i = run.from; i < run.to; i++)
        write_slot(cpu, &cpu->k->slots[i]);
    count(&cpu->shared->nr_pages, run.to - run.from);
}

/* A run of random length inside a random window of the share, not in the window of @other. */
static struct range draw_run(struct cpu *cpu, struct range share, struct range other)
{
    uint32_t nr_windows = (share.to - share.from + CHURN_PAGES - 1) / CHURN_PAGES;
    uint32_t window = (uint32_t)rng_below(&cpu->rng, nr_windows);

    if (other.to > other.from && window == (other.from - share.from) / CHURN_PAGES)
        window = (window + 1) % nr_windows;
    uint32_t start = share.from + window * CHURN_PAGES;
    uint32_t most = MIN_OF(share.to - start, (uint32_t)CHURN_PAGES);
    uint32_t length = 1 + (uint32_t)rng_below(&cpu->rng, most);
    uint32_t from = start + (uint32_t)rng_below(&cpu->rng, most - length + 1);

    return (struct range){from, from + length};
}

/*
 * Each run stays free until the next one is free too, so that pages change their places. A share of one window has
 * nowhere else to go: its run comes back at once.
 */
static void run_churn(struct cpu *cpu, const struct ebb_step *step)
{
    struct range share = page_share(cpu, step);
    struct range waiting = {0, 0};
    uint64_t ops = share.to > share.from ? op_share(cpu, step->ops) : 0;
    bool one_window = share.to - share.from <= CHURN_PAGES;

    for (uint64_t i = 0; i < ops; i++) {
        struct range run = draw_run(cpu, share, waiting);

        for (uint32_t page = run.from; page < run.to; page++)
            check_slot_quick(cpu, &cpu->k->slots[page]);
        memory_give(cpu->k, run.from, run.to);
        refill(cpu, one_window ? run : waiting);
        waiting = one_window ? waiting : run;
        show_progress(cpu, i + 1);
    }
    refill(cpu, waiting);
    count(&cpu->shared->nr_ops, ops);
}

static void run_hostile(struct cpu *cpu, const struct ebb_step *step)
{
    uint64_t ops = op_share(cpu, step->ops);

    hostile_run(cpu, ops, show_progress);
    count(&cpu->shared->nr_ops, ops);
}

/* Pages for what @step adds. With several nodes each vCPU's share is of its own node, as far as that has some. */
static int take_pages(struct cpu *cpu, const struct ebb_step *step)
{
    struct kernel *k = cpu->k;

    if (k->nr_nodes == 1)
        return memory_take(k, 0, k->nr_filled, step->start_pages + step->size_pages);
    for (uint32_t number = 0; number < k->nr_cpus; number++) {
        struct range share = page_share_of(cpu, number, step);
        uint32_t from = MAX_OF(share.from, k->nr_filled);

        if (from < share.to && memory_take(k, memory_node_of(k, number), from, share.to))
            return -1;
    }
    return 0;
}

/* What each node has left, where there are several. */
static void print_free(struct cpu *cpu)
{
    for (uint32_t i = 0; i < cpu->k->nr_nodes && cpu->k->nr_nodes > 1; i++) {
        const struct node *node = &cpu->k->nodes[i];
        uint32_t free = 0;

        for (unsigned j = 0; j < node->nr_zones; j++)
            free += zone_nr_free(&node->zones[j], PLANE_FILLED);
        print_line(cpu, "node %u: %u pages free", i, free);
    }
}

void step_prepare(struct cpu *cpu, const struct ebb_step *step)
{
    struct kernel *k = cpu->k;
    uint64_t end = (uint64_t)step->start_pages + step->size_pages;

    if (step->kind >= EBB_NR_STEP_KINDS)
        leave(EBB_EXIT_BAD_WORKLOAD);
    if (step->kind == EBB_STEP_FILL) {
        if (end > k->nr_slots || step->start_pages > k->nr_filled)
            leave(EBB_EXIT_NO_MEMORY);
        if (end > k->nr_filled && take_pages(cpu, step))
            leave(EBB_EXIT_NO_MEMORY);
        k->nr_filled = MAX_OF(k->nr_filled, (uint32_t)end);
        print_free(cpu);
        return;
    }
    if (end > k->nr_filled)
        leave(EBB_EXIT_BAD_WORKLOAD);
    if (step->kind == EBB_STEP_STREAM && step->take_pages == 0)
        leave(EBB_EXIT_BAD_WORKLOAD);
    if (step->kind == EBB_STEP_HOSTILE && !k->scratch && hostile_prepare(k))
        leave(EBB_EXIT_NO_MEMORY);
    if (step->kind == EBB_STEP_ZIPF) {
        if (step->size_pages == 0)
            leave(EBB_EXIT_BAD_WORKLOAD);
        zipf_init(&k->zipf, step->size_pages, step->theta_milli);
    }
}

void step_run(struct cpu *cpu, const struct ebb_step *step)
{
    static void (*const run[EBB_NR_STEP_KINDS])(struct cpu *, const struct ebb_step *) = {
        [EBB_STEP_FILL] = run_fill,     [EBB_STEP_VERIFY] = run_verify,   [EBB_STEP_ZIPF] = run_zipf,
        [EBB_STEP_STREAM] = run_stream, [EBB_STEP_IDLE] = run_idle,       [EBB_STEP_FREE] = run_free,
        [EBB_STEP_CHURN] = run_churn,   [EBB_STEP_HOSTILE] = run_hostile,
    };

    cpu->rng = mix64(step->seed + cpu->number);
    run[step->kind](cpu, step);
}
