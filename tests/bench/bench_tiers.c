/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiers under the embedded guest's zipf, the fast node a quarter of the working set: the share of accesses that found
 * their page on the fast node, beside an oracle that knows the trace, FIFO and random placement.
 *
 * No machine counts accesses by node. But what the guest touches is known: its trace comes from a seed. The guest is
 * paused for a moment some hundred times a run, and where each page is then is written down; the same piece of the trace
 * is gone through here, on the map from the piece's beginning. Pages move meanwhile, so the map from its end is used as
 * well: what is between the two is not known.
 *
 * On a host with fewer nodes the same one stands for both: what is measured is which pages are where.
 */
#include "guest-images/ebbguest/kernel.h"
#include "mm/reclaim/host.h"
#include "tests/bench/harness.h"
#include "tests/unit/tier_replay.h"
#include "vmm/machine_parts.h"
#include "vmm/numa.h"

#include <poll.h>

#define RATE_BYTES_PER_S (256 * MIB) /* as ebb run's default */
#define RUNS 3u
#define ZIPF_STEP 1u
#define WRITE_PCT 20u
#define NODE_NONE 0xff

struct scene {
    const char *name;
    uint64_t set_mib; /* what the trace goes over */
    uint64_t ops, warm_up, piece;
    unsigned work; /* of the guest between accesses */
};

struct figures {
    double begin_pct, end_pct; /* accesses on the fast node, by the maps from the pieces' beginnings and ends */
    double oracle_pct, fifo_pct;
    double seconds;
    uint64_t promoted, demoted, armed; /* pages */
};

struct tiers {
    const struct scene *scene;
    struct memhost *mh;
    struct machine *machine;
    struct workload workload;
    struct tier_replay replay;
    /* the guest's trace, and how far it was gone through */
    struct zipf zipf;
    uint64_t rng, at;
    uint16_t *generation; /* by page of the trace: what it is after the writes so far */
    uint64_t nr_begin, nr_end;
    /* by page of the trace */
    uint32_t *gfn;
    uint8_t *node, *node_before;
};

/* --- where the pages are --------------------------------------------------------------------------- */

static uint8_t node_of_entry(const struct mm_host *host, const struct s2_entry *entry)
{
    if (entry->state == S2_RESIDENT)
        return (uint8_t)resident_payload_node(entry->payload);
    return entry->state == S2_STANDBY ? (uint8_t)node_of(host, (fn_t)entry->payload) : NODE_NONE;
}

/* Single pages only: there are no others in this run. */
static void read_nodes(struct tiers *t)
{
    const struct mm_vm *vm = memhost_vm_mm(machine_memory(t->machine));

    for (uint32_t page = 0; page < t->replay.nr_pages; page++) {
        struct block *block = vm_block(vm, t->gfn[page]);
        lock_acquire(&block->lock);
        struct s2_entry entry = pmd_read(block);
        if (entry.state == S2_TABLE)
            entry = pte_read(block, t->gfn[page] % BLOCK_PAGES);
        t->node[page] = node_of_entry(vm->host, &entry);
        lock_release(&block->lock);
    }
}

static const struct page_slot *guest_slots(struct tiers *t)
{
    struct memhost_vm *vm = machine_memory(t->machine);
    gpa_t slots = {t->machine->ports.shared->vcpu[0].slots_gpa};

    return memhost_vm_hva(vm, slots, t->replay.nr_pages * sizeof(struct page_slot));
}

static void read_gfns(struct tiers *t)
{
    const struct page_slot *slots = guest_slots(t);

    for (uint32_t page = 0; page < t->replay.nr_pages; page++)
        t->gfn[page] = slots[page].gfn;
}

/* --- the trace ------------------------------------------------------------------------------------- */

/* One access as the guest draws it: run_zipf of guest-images/ebbguest/steps.c. Returns the page. */
static uint32_t next_access(struct tiers *t)
{
    const struct ebb_step *step = &t->workload.steps[ZIPF_STEP];
    uint32_t page = scatter(zipf_sample(&t->zipf, &t->rng), step->size_pages, step->seed);

    if (rng_below(&t->rng, 100) < step->write_pct)
        t->generation[page] = (uint16_t)(t->generation[page] % UINT16_MAX + 1); /* as write_slot */
    else
        rng_next(&t->rng); /* which words the guest checks */
    return page;
}

/* The trace up to access @to, on the maps from before it and from now. */
static void replay_piece(struct tiers *t, uint64_t to)
{
    for (; t->at < to; t->at++) {
        uint32_t page = next_access(t);
        bool counts = t->at >= t->scene->warm_up;
        tier_replay_access(&t->replay, page, counts);
        t->nr_begin += counts && t->node_before[page] == 0;
        t->nr_end += counts && t->node[page] == 0;
    }
}

/* Pages whose generation is not what the replay says; 0, or the guest went another way. */
static uint32_t nr_astray(struct tiers *t)
{
    const struct page_slot *slots = guest_slots(t);
    uint32_t nr = 0;

    for (uint32_t page = 0; page < t->replay.nr_pages; page++)
        nr += slots[page].generation != t->generation[page];
    return nr;
}

static bool has_ended(struct tiers *t, int wait_ms)
{
    struct pollfd done = {.fd = machine_done_fd(t->machine), .events = POLLIN};

    return poll(&done, 1, wait_ms) > 0;
}

/* How far the guest is in its trace; at most 255 accesses further in fact. */
static uint64_t progress(struct tiers *t)
{
    unsigned step;
    uint64_t done, total;

    machine_progress(t->machine, &step, &done, &total);
    return step == ZIPF_STEP ? done : 0;
}

/* The guest stands still while it is written down where its pages are. */
static void next_piece(struct tiers *t)
{
    uint8_t *before = t->node_before;

    machine_pause(t->machine);
    uint64_t to = progress(t);
    t->node_before = t->node;
    t->node = before;
    read_nodes(t);
    machine_resume(t->machine);
    replay_piece(t, to);
}

static void follow(struct tiers *t)
{
    while (progress(t) == 0 && !has_ended(t, 1))
        ;
    machine_pause(t->machine);
    read_gfns(t);
    read_nodes(t);
    machine_resume(t->machine);
    while (!has_ended(t, 1))
        if (progress(t) >= t->at + t->scene->piece)
            next_piece(t);
    next_piece(t);
}

/* --- a run ----------------------------------------------------------------------------------------- */

/* The fast node has a quarter of the working set, the slow one room for all that the guest has. */
static struct mm_config make_config(const struct scene *scene)
{
    struct numa_host *host = malloc(sizeof(*host));
    struct mm_config config = {.nr_nodes = 2};
    uint64_t nodes;

    if (!host)
        harness_die("out of memory");
    numa_host_read(host);
    nodes = numa_host_with_memory(host);
    free(host);
    config.demote_bytes_per_s = config.promote_bytes_per_s = RATE_BYTES_PER_S;
    config.nodes[0] = (struct mm_node_config){
        .id = __builtin_ctzll(nodes), .budget_bytes = scene->set_mib / 4 * MIB, .distance = {10, 20}};
    config.nodes[1] = (struct mm_node_config){
        .id = 63 - __builtin_clzll(nodes), .budget_bytes = scene->set_mib * 2 * MIB, .distance = {20, 10}, .rank = 1};
    config.budget_bytes = config.nodes[0].budget_bytes + config.nodes[1].budget_bytes;
    return config;
}

static void ignore_line(void *ctx, const char *line)
{
    (void)ctx;
    (void)line;
}

static bool start(struct tiers *t)
{
    const struct scene *scene = t->scene;
    struct memhost_config host = {.mm = make_config(scene)};
    uint64_t memory_bytes = scene->set_mib * 3 / 2 * MIB;
    struct diag diag = {0};
    char text[160];
    struct machine_config config = {
        .name = "tiers", .memory_bytes = memory_bytes, .nr_cpus = 1, .workload = &t->workload, .on_line = ignore_line};

    snprintf(text, sizeof(text), "fill:%lluM,pattern=text;zipf:%lluM,ops=%llu,write=%u,work=%u",
             (unsigned long long)scene->set_mib, (unsigned long long)scene->set_mib, (unsigned long long)scene->ops,
             WRITE_PCT, scene->work);
    if (workload_parse(text, memory_bytes, &t->workload, &diag) || memhost_create(&host, &t->mh, &diag) ||
        machine_create(t->mh, &config, &t->machine, &diag) || machine_start(t->machine, &diag)) {
        fprintf(stderr, "bench: %s\n", diag.text);
        return false;
    }
    return true;
}

static void set_up(struct tiers *t, const struct scene *scene)
{
    uint32_t pages = (uint32_t)(scene->set_mib * MIB / PAGE_BYTES);

    memset(t, 0, sizeof(*t));
    t->scene = scene;
    t->gfn = calloc(pages, sizeof(t->gfn[0]));
    t->node = calloc(pages, sizeof(t->node[0]));
    t->node_before = calloc(pages, sizeof(t->node_before[0]));
    t->generation = calloc(pages, sizeof(t->generation[0]));
    if (!t->gfn || !t->node || !t->node_before || !t->generation || tier_replay_init(&t->replay, pages, pages / 4))
        harness_die("out of memory");
    for (uint32_t page = 0; page < pages; page++)
        t->generation[page] = 1; /* filled once */
}

static void tear_down(struct tiers *t)
{
    if (t->machine)
        machine_destroy(t->machine);
    if (t->mh)
        memhost_destroy(t->mh);
    tier_replay_fini(&t->replay);
    free(t->gfn);
    free(t->node);
    free(t->node_before);
    free(t->generation);
}

static void take_figures(struct tiers *t, const struct machine_result *result, struct figures *out)
{
    struct mm_host_stat stat;
    double nr = (double)t->replay.nr / 100;

    mm_host_stat(memhost_mm(t->mh), &stat);
    *out = (struct figures){
        .begin_pct = (double)t->nr_begin / nr,
        .end_pct = (double)t->nr_end / nr,
        .fifo_pct = (double)t->replay.nr_fifo / nr,
        .seconds = (double)result->steps[ZIPF_STEP].ns / 1e9,
        .promoted = stat.event[EV_pgpromote_success],
        .demoted = stat.event[EV_pgdemote_kswapd] + stat.event[EV_pgdemote_direct],
        .armed = stat.event[EV_numa_pte_updates],
    };
    out->oracle_pct = (double)tier_replay_oracle(&t->replay) / nr;
}

static bool run(const struct scene *scene, struct figures *out)
{
    struct tiers t;
    bool ok;

    set_up(&t, scene);
    ok = start(&t);
    if (ok) {
        zipf_init(&t.zipf, t.replay.nr_pages, t.workload.steps[ZIPF_STEP].theta_milli);
        t.rng = mix64(t.workload.steps[ZIPF_STEP].seed); /* of vCPU 0 */
        follow(&t);
        const struct machine_result *result = machine_join(t.machine);
        uint32_t astray = nr_astray(&t);
        ok = result->state == MACHINE_DONE && astray == 0;
        if (!ok)
            fprintf(stderr, "bench: %s%u pages are not what the replayed trace says\n", result->reason, astray);
        else
            take_figures(&t, result, out);
    }
    tear_down(&t);
    return ok;
}

static bool measure(const struct harness *h, const struct scene *scene)
{
    struct harness_row row[] = {
        {.work = "accesses on the fast node", .other = "oracle", .unit = "%", .kind = ROW_RATE, .aim = 0.9},
        {.work = "  by where pages are after each piece", .other = "oracle", .unit = "%", .kind = ROW_RATE},
        {.work = "  beside FIFO", .other = "FIFO", .unit = "%", .kind = ROW_RATE},
        {.work = "  beside random placement", .other = "random", .unit = "%", .kind = ROW_RATE},
    };

    harness_heading(scene->name);
    for (unsigned i = 0; i < MIN_OF(h->nr_pairs, RUNS); i++) {
        struct figures got;
        if (!run(scene, &got))
            return false;
        row_add(&row[0], got.begin_pct, got.oracle_pct);
        row_add(&row[1], got.end_pct, got.oracle_pct);
        row_add(&row[2], got.begin_pct, got.fifo_pct);
        row_add(&row[3], got.begin_pct, 25);
        printf("  run %u: %.0f s, %.3f of the oracle; pages armed %llu, promoted %llu, demoted %llu\n", i + 1,
               got.seconds, got.begin_pct / got.oracle_pct, (unsigned long long)got.armed,
               (unsigned long long)got.promoted, (unsigned long long)got.demoted);
    }
    for (unsigned i = 0; i < ARRAY_LEN(row); i++)
        row_print(h, &row[i]);
    return true;
}

int main(int argc, char **argv)
{
    struct harness h = harness_init(argc, argv);
    struct scene scenes[] = {
        {"zipf in the embedded guest, fast node a quarter, work", 64, 12000000, 2400000, 12000, 1000},
        {"the same, and the guest does nothing but accesses", 64, 100000000, 20000000, 100000, 0},
    };

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        printf("\nno /dev/kvm: tiers left out\n");
        return 0;
    }
    for (unsigned i = 0; i < ARRAY_LEN(scenes); i++) {
        if (h.quick) {
            scenes[i].set_mib = 32;
            scenes[i].ops = 100000;
            scenes[i].warm_up = scenes[i].piece = 10000;
        }
        if (!measure(&h, &scenes[i]))
            return 1;
    }
    return 0;
}
