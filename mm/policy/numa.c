/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See numa.h. The scan goes over all VMs in passes: 256 MiB a second at most, as Linux does (mm/sched/fair.c,
 * sysctl numa_balancing_scan_size), and less often while nobody touches what is on another node.
 */
#include "mm/policy/numa.h"
#include "mm/reclaim/evict.h"

#include <errno.h>
#include <stdlib.h>

#define ROUND_MS 100u
#define ROUND_PAGES 6400u /* 250 MiB/s */
/*
 * Share of one CPU for arming and for the faults that come of it, in percent. Where faults are dear, a pass takes longer:
 * without it, a guest whose slow memory is all in use did little else than fault.
 */
#define QUOTA_PCT 3
#define FAULT_WEIGHT 16u /* of the mean cost of a fault the last one is so small a part; chosen, unmeasured */
/* A fault that costs so many times as much as others did something else as well, as reclaim: that is not the scan's cost. */
#define FAULT_MOST 16u
#define FAULT_MEAN_MIN_NS 1000u
/* So many blocks with nothing to arm are paid for together: to ask for the CPU time is a system call. */
#define PAID_BLOCKS 64u
#define PASS_MIN_MS 1000u
#define PASS_MAX_MS 16000u
#define PASS_MAX_TIERS_MS (NUMA_HOT_S * 1000 / 2) /* two touches within NUMA_HOT_S are to be seen */
/* A block of which so many times its pages moved lately is one that its users quarrel over. */
#define QUARREL_MOVES 2u
#define SKIP_MAX 64u
/*
 * The part of a block's moves that is forgotten at each look. With two users by chance one look of six moves a page: at a
 * 16th the scan never got beyond every fourth pass, and pages moved at that rate for good.
 */
#define FORGIVE_SHARE 64u
#define ADAPT_MS 1000u /* a pass may take ten times as long, in which thousands are promoted in vain */
#define ADAPT_SHARE 4u /* fewer armed pages than that share of the fast nodes say nothing; chosen, unmeasured */
#define HOT_FIRST 8u
#define HOT_MARGIN 2u /* one touch of an armed page says little: it has to come so much sooner */
#define HOT_STEPS ((unsigned)(NUMA_HOT_S * RATE_NS_PER_S >> NOTE_WHEN_SHIFT) + 1)
/* Of the fast nodes, promoted in a second at most. A 32nd: slower at first, and not better later. */
#define HOT_SHARE 16u

struct numa_scan {
    bool balancing;
    nodemask_t slow; /* nodes that have a faster one */
    /* the scan's own */
    vmid_t id;
    unsigned region;
    uint64_t block;
    uint64_t pass_ns;    /* when this pass began */
    unsigned pass_ms;    /* at least so long until the next */
    uint64_t remote;     /* touches from another node when the pass began */
    uint64_t candidates; /* for promotion, when the pass began */
    uint64_t adapt_ns;   /* when hot was adapted last; and what there was until then: */
    uint64_t adapt_candidates, adapt_armed;
    uint64_t fast_pages; /* of all nodes that are not slow */
    int64_t credit_ns;   /* of the quota: what may be spent, or is owed; atomic */
    uint64_t round_ns;   /* when the last round was */
    uint64_t fault_ns;   /* what a fault of an armed page costs, about; atomic */
    unsigned window;     /* two touches within so many steps of the notes' clock; atomic */
};

int numa_create(struct mm_host *host)
{
    struct numa_scan numa = {
        .balancing = host->config.numa_balancing && host->nr_nodes > 1, .pass_ms = PASS_MIN_MS, .window = HOT_STEPS};
    for (unsigned n = 0; n < host->nr_nodes; n++)
        for (unsigned k = 0; k < host->nr_nodes; k++)
            if (host->node[k].config.rank < host->node[n].config.rank)
                numa.slow |= (nodemask_t)(1u << n);
    for (unsigned n = 0; n < host->nr_nodes; n++)
        if (!(numa.slow >> n & 1))
            numa.fast_pages += host->node[n].pool.budget_pages;
    if (!numa.balancing && !numa.slow)
        return 0;
    host->numa = malloc(sizeof(*host->numa));
    if (!host->numa)
        return -ENOMEM;
    numa.pass_ns = numa.adapt_ns = numa.round_ns = host->ops->clock_ns(host->ops_ctx);
    *host->numa = numa;
    host->hot = HOT_FIRST;
    return 0;
}

void numa_destroy(struct mm_host *host)
{
    free(host->numa);
}

/* ---- where to ---- */

static unsigned rank_of(const struct mm_host *host, unsigned node)
{
    return host->node[node].config.rank;
}

/* The nearest to @from of those that are faster than @node; of the next rank up, as demotion goes one down. */
static unsigned faster_node(const struct mm_host *host, unsigned node, unsigned from, nodemask_t allowed)
{
    const uint8_t *nearest = host->node[from].nearest;
    unsigned best = node;
    for (unsigned i = 0; i < host->nr_nodes; i++) {
        unsigned n = nearest[i];
        if (allowed >> n & 1 && rank_of(host, n) < rank_of(host, node) &&
            (best == node || rank_of(host, n) > rank_of(host, best)))
            best = n;
    }
    return best;
}

/* From when the page was taken home, by the scan or by reclaim, to the touch. */
static uint32_t waited_ms(const struct mm_host *host, const struct numa_touch *touch)
{
    const struct block *block = touch->block;
    uint64_t home_ns = touch->sampled_ns ? touch->sampled_ns : block->access.home_ns;
    uint32_t since_ms = touch->armed && !touch->sampled_ns ? block->armed_ms : (uint32_t)(home_ns / NS_PER_MS);
    uint32_t ms = (uint32_t)(touch->now_ns / NS_PER_MS) - since_ms;
    if (ms > INT32_MAX)
        ms = 0; /* who touched it while its block was being armed did so before the end of that */
    if (touch->armed || touch->huge)
        return ms;
    /* others of its block may have been taken since then */
    uint8_t steps = (uint8_t)(taken_clock(touch->now_ns) - host->frames[touch->fn].taken);
    if (steps == UINT8_MAX)
        return ms; /* it was taken while its touch waited for the block */
    return MAX_OF(ms, (uint32_t)(((uint64_t)steps << TAKEN_SHIFT) / NS_PER_MS));
}

/*
 * How hot a page is after this touch: the sooner after it was taken home, the more often it is touched. Half of what was
 * known before goes in. It is times that are averaged, not their logarithms: then one touch that came soon by chance
 * weighs little. Between two steps it is chance, so that small changes are not lost.
 */
static uint8_t heat_after(const struct mm_host *host, const struct numa_touch *touch)
{
    uint32_t mean_ms = waited_ms(host, touch);
    if (touch->note.heat)
        mean_ms = (mean_ms + (1u << (NOTE_HEAT_MAX - touch->note.heat))) / 2;
    mean_ms = MIN_OF(MAX_OF(mean_ms, 1u), (1u << (NOTE_HEAT_MAX - 1)) - 1);
    unsigned log = 31u - (unsigned)__builtin_clz(mean_ms);
    uint32_t chance = (uint32_t)((touch->now_ns ^ touch->fn) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
    log += (uint64_t)(mean_ms - (1u << log)) << (32 - log) > chance;
    return (uint8_t)(NOTE_HEAT_MAX - log);
}

/* Touched twice within the window, and as hot as what is to be promoted. */
static bool is_hot(const struct mm_host *host, const struct numa_touch *touch, unsigned heat)
{
    uint8_t since = (uint8_t)(note_clock(touch->now_ns) - touch->note.when) & NOTE_WHEN_MAX;
    unsigned hot = __atomic_load_n(&host->hot, __ATOMIC_RELAXED);
    if (touch->armed && !touch->note.heat)
        hot += HOT_MARGIN;
    return touch->note.vcpu && since <= __atomic_load_n(&host->numa->window, __ATOMIC_RELAXED) && heat >= hot;
}

static unsigned choose_faster(const struct mm_host *host, const struct numa_touch *touch, unsigned heat)
{
    unsigned from = touch->wish->knows_toucher ? touch->wish->toucher : touch->home;
    return is_hot(host, touch, heat) ? faster_node(host, touch->home, from, touch->wish->allowed) : touch->home;
}

/* The one who touched it before this touch ran on the same node. */
static bool second_from(const struct mm_vm *vm, const struct numa_touch *touch, unsigned node)
{
    unsigned vcpu = touch->note.vcpu;
    return vcpu && __atomic_load_n(&vm->touches[vcpu - 1].node, __ATOMIC_RELAXED) == node;
}

static void count_touch(struct mm_host *host, const struct numa_touch *touch)
{
    bool local = touch->wish->toucher == touch->home;
    event_add(host, EV_numa_hint_faults, 1);
    event_add(host, EV_numa_hint_faults_local, local);
    if (!touch->vcpu)
        return;
    struct vcpu_touches *by = &touch->block->vm->touches[touch->vcpu - 1];
    counter_add(&by->hint_faults, 1);
    counter_add(&by->hint_faults_local, local);
}

unsigned numa_choose(struct mm_host *host, const struct numa_touch *touch, uint8_t *heat)
{
    *heat = heat_after(host, touch);
    const struct numa_scan *numa = host->numa;
    const struct wish *wish = touch->wish;
    if (touch->armed && wish->knows_toucher)
        count_touch(host, touch);
    if (numa->slow >> touch->home & 1)
        return choose_faster(host, touch, *heat);
    bool there = wish->knows_toucher && wish->toucher != touch->home && wish->allowed >> wish->toucher & 1 &&
                 rank_of(host, wish->toucher) == rank_of(host, touch->home);
    if (!numa->balancing || wish->interleaved || !there || !second_from(touch->block->vm, touch, wish->toucher))
        return touch->home;
    return wish->toucher;
}

bool numa_is_slow(const struct mm_host *host, unsigned node)
{
    return host->numa && host->numa->slow >> node & 1;
}

bool numa_allow(struct mm_host *host, unsigned from, unsigned to, uint32_t pages)
{
    if (rank_of(host, to) >= rank_of(host, from))
        return true;
    event_add(host, EV_pgpromote_candidate, pages);
    return rate_take(&host->promote, pages * PAGE_BYTES, host->ops->clock_ns(host->ops_ctx));
}

void numa_moved(struct mm_host *host, struct block *block, unsigned from, unsigned to, uint32_t pages)
{
    if (!pages) {
        event_add(host, EV_pgmigrate_fail, 1);
        return;
    }
    event_add(host, EV_pgmigrate_success, pages);
    if (rank_of(host, to) < rank_of(host, from)) {
        event_add(host, EV_pgpromote_success, pages);
        return;
    }
    event_add(host, EV_numa_pages_migrated, pages);
    uint32_t moves = block->numa_moves + pages;
    block->numa_moves = (uint16_t)MIN_OF(moves, UINT16_MAX);
}

/* ---- who touches what ---- */

/*
 * Whether this pass leaves the block alone. A block whose pages went to and fro is looked at less and less often: after
 * two moves of each page every other pass, then every fourth ...; and it is forgiven as slowly.
 */
static bool skip_block(struct block *block)
{
    if (block->numa_skip > 0) {
        block->numa_skip--;
        return true;
    }
    unsigned quarrel = block->numa_moves / (QUARREL_MOVES * BLOCK_PAGES);
    block->numa_skip = (uint8_t)MIN_OF((1u << MIN_OF(quarrel, 6u)) - 1, SKIP_MAX);
    block->numa_moves = (uint16_t)(block->numa_moves - block->numa_moves / FORGIVE_SHARE);
    return false;
}

static void spend(struct numa_scan *numa, uint64_t ns)
{
    __atomic_sub_fetch(&numa->credit_ns, (int64_t)ns, __ATOMIC_RELAXED);
}

/* In a round of the scan. */
struct armed {
    uint32_t pages;
    uint32_t faults; /* that are to come of them: one for a 2 MiB frame */
    uint32_t unpaid; /* blocks that were looked at since cpu_ns; one that was armed is paid for at once */
    uint64_t cpu_ns; /* the round is paid for up to here, in the thread's CPU time */
};

static void pay_round(struct mm_host *host, struct armed *armed)
{
    uint64_t cpu_ns = host->ops->cpu_ns(host->ops_ctx);
    spend(host->numa, cpu_ns - armed->cpu_ns);
    armed->cpu_ns = cpu_ns;
    armed->unpaid = 0;
}

/* Else its pages can go nowhere else, whoever touches them. A VM without pages may be getting its policies just now. */
static bool has_choice(const struct block *block)
{
    nodemask_t allowed = place_allowed(block->vm, block->start);
    return allowed & (allowed - 1);
}

static void arm(struct mm_thread *thread, struct block *block, struct armed *armed)
{
    const struct numa_scan *numa = thread->host->numa;
    nodemask_t nodes = numa->balancing ? (nodemask_t)~0u : numa->slow;
    struct mm_host *host = thread->host;
    uint32_t taken = 0;
    armed->unpaid++;
    lock_acquire(&block->lock);
    if (block->nr_resident && has_choice(block) && !skip_block(block))
        taken = lru_arm_block(thread, block, nodes);
    armed->pages += taken;
    armed->faults += taken && pmd_read(block).state == S2_STANDBY ? 1 : taken;
    if (block->nr_resident == 0)
        lru_del_block(host, block);
    lock_release(&block->lock);
    event_add(host, EV_numa_pte_updates, taken);
    if (taken)
        armed->unpaid = PAID_BLOCKS;
}

/* The cursor stands before the first block of VM @id. */
static void go_to(struct numa_scan *numa, unsigned id)
{
    numa->id = (vmid_t)id;
    numa->region = 0;
    numa->block = 0;
}

/* The VM under the cursor, held, or the next one. NULL: the pass is over. */
static struct mm_vm *scanned_vm(struct mm_host *host, struct numa_scan *numa)
{
    struct mm_vm *vm = NULL;
    lock_acquire(&host->lru.lock);
    while (numa->id < MM_MAX_VMS && !(vm = host->vms[numa->id]))
        go_to(numa, numa->id + 1u);
    if (vm)
        vm_get(vm);
    lock_release(&host->lru.lock);
    return vm;
}

/* The next block of @vm, NULL after the last. */
static struct block *next_block(struct mm_vm *vm, struct numa_scan *numa)
{
    for (; numa->region < vm->nr_regions; numa->region++, numa->block = 0)
        if (numa->block < vm->regions[numa->region].bytes >> BLOCK_SHIFT)
            return &vm->blocks[numa->region][numa->block++];
    return NULL;
}

static uint64_t nr_remote(struct mm_host *host)
{
    return counter_read(&host->event[EV_numa_hint_faults]) - counter_read(&host->event[EV_numa_hint_faults_local]);
}

/*
 * As many candidates as there is any use in promoting: what the rate allows, and at most a share of the fast nodes in a
 * second, so that what was promoted has time to be of use. More of them: only hotter ones. Fewer, of pages enough that
 * were armed for it: the other way round.
 */
static void adapt_hot(struct mm_host *host, struct numa_scan *numa, uint64_t now_ns)
{
    uint64_t candidates = counter_read(&host->event[EV_pgpromote_candidate]);
    uint64_t armed = counter_read(&host->event[EV_numa_pte_updates]), passed_ns = now_ns - numa->adapt_ns;
    if (passed_ns < ADAPT_MS * NS_PER_MS)
        return;
    double rate = (double)numa->fast_pages / HOT_SHARE, limit = (double)host->promote.bytes_per_s / PAGE_BYTES;
    if (host->promote.bytes_per_s && limit < rate)
        rate = limit;
    double goal = rate * (double)passed_ns / RATE_NS_PER_S, found = (double)(candidates - numa->adapt_candidates);
    unsigned hot = host->hot;
    if (found <= goal && armed - numa->adapt_armed < numa->fast_pages / ADAPT_SHARE)
        return; /* it says little */
    if (found > goal && hot < NOTE_HEAT_MAX)
        hot++;
    else if (found < goal / 2 && hot > 1)
        hot--;
    __atomic_store_n(&host->hot, hot, __ATOMIC_RELAXED);
    numa->adapt_ns = now_ns;
    numa->adapt_candidates = candidates;
    numa->adapt_armed = armed;
}

/* A pass is over: the next one comes soon if this one found something to move. */
static void end_pass(struct mm_host *host, struct numa_scan *numa, uint64_t now_ns)
{
    uint64_t remote = nr_remote(host), candidates = counter_read(&host->event[EV_pgpromote_candidate]);
    bool found = remote != numa->remote || candidates != numa->candidates;
    numa->pass_ms = found ? PASS_MIN_MS : MIN_OF(2 * numa->pass_ms, numa->slow ? PASS_MAX_TIERS_MS : PASS_MAX_MS);
    /* or within two passes, where they take that long */
    uint64_t steps = 2 * (now_ns - numa->pass_ns) >> NOTE_WHEN_SHIFT;
    unsigned window = (unsigned)MIN_OF(MAX_OF(steps, (uint64_t)HOT_STEPS), (uint64_t)NOTE_WHEN_MAX / 2);
    __atomic_store_n(&numa->window, window, __ATOMIC_RELAXED);
    numa->remote = remote;
    numa->candidates = candidates;
    numa->pass_ns = now_ns;
    go_to(numa, 0);
}

void numa_pay(struct mm_host *host, uint64_t ns)
{
    uint64_t *mean = &host->numa->fault_ns, was = __atomic_load_n(mean, __ATOMIC_RELAXED);
    if (was)
        ns = MIN_OF(ns, FAULT_MOST * MAX_OF(was, (uint64_t)FAULT_MEAN_MIN_NS));
    __atomic_store_n(mean, was - was / FAULT_WEIGHT + ns / FAULT_WEIGHT, __ATOMIC_RELAXED); /* one may be lost */
    spend(host->numa, ns);
}

/* The quota's share of the time since the last round is added; no more than two rounds' worth is saved. */
static void earn(struct numa_scan *numa, uint64_t now_ns)
{
    int64_t most = 2 * ROUND_MS * (int64_t)NS_PER_MS * QUOTA_PCT / 100;
    int64_t credit_ns = __atomic_load_n(&numa->credit_ns, __ATOMIC_RELAXED), more;
    more = (int64_t)((now_ns - numa->round_ns) / 100 * QUOTA_PCT);
    if (credit_ns + more > most)
        more = most - credit_ns;
    __atomic_add_fetch(&numa->credit_ns, more, __ATOMIC_RELAXED);
    numa->round_ns = now_ns;
}

/*
 * Whether something is left, once the @faults of what was armed in this round are paid as well. Those come soon: armed
 * all at once, they would hold the guest up, and a page that waits behind them seems colder than it is.
 */
static bool has_credit(const struct numa_scan *numa, uint32_t faults)
{
    int64_t faults_ns = (int64_t)(faults * __atomic_load_n(&numa->fault_ns, __ATOMIC_RELAXED));
    return __atomic_load_n(&numa->credit_ns, __ATOMIC_RELAXED) > faults_ns;
}

unsigned numa_scan(struct mm_thread *thread)
{
    struct mm_host *host = thread->host;
    struct numa_scan *numa = host->numa;
    if (!numa)
        return 0;
    uint64_t now_ns = host->ops->clock_ns(host->ops_ctx), since_ns = now_ns - numa->round_ns;
    if (since_ns < ROUND_MS * NS_PER_MS)
        return ROUND_MS - (unsigned)(since_ns / NS_PER_MS);
    earn(numa, now_ns);
    adapt_hot(host, numa, now_ns);
    if (numa->id == 0) {
        if (now_ns - numa->pass_ns < numa->pass_ms * NS_PER_MS)
            return ROUND_MS;
        go_to(numa, 1);
    }
    struct armed armed = {.cpu_ns = host->ops->cpu_ns(host->ops_ctx)};
    while (armed.pages < ROUND_PAGES && has_credit(numa, armed.faults)) {
        struct mm_vm *vm = scanned_vm(host, numa);
        if (!vm) {
            end_pass(host, numa, now_ns);
            break;
        }
        struct block *block = next_block(vm, numa);
        if (block)
            arm(thread, block, &armed);
        else
            go_to(numa, numa->id + 1u);
        vm_put(vm);
        if (armed.unpaid >= PAID_BLOCKS)
            pay_round(host, &armed);
    }
    pay_round(host, &armed);
    return ROUND_MS;
}
