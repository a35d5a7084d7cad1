/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room for blocks that are to be rebuilt, on a node whose budget is full. What is known to be cold makes it:
 *
 *     at a pass's end    standby is marked; a pass takes a second or more
 *     in the next ones   what has stood behind the fourth mark ever since was not touched for so long. It is evicted, but only if
 *                        there is enough of it for a whole frame, and for a block all of which came back in less time
 *     not enough         a look: what is cold by its age goes home, round the node's memory; what is touched comes back, and is
 *                        left alone for longer; the rest will stand behind the marks
 *
 * Where reclaim evicts more than standby holds meanwhile, nothing stands there for so long. Then what it did by itself since the
 * last mark says what is cold: while hardly any of that is wanted again, as much may go ahead of its time.
 *
 * The room is not kept: a block that is rebuilt leaves as many pages free as it had, so the next one has to find no more
 * than what it was short of.
 */
#include "mm/policy/page_size.h"
#include "mm/reclaim/evict.h"

/* Evictions are wrong when more than one in so many is wanted again soon. Chosen, unmeasured. */
#define MISTAKE_SHARE 8u
/* Evictions that are so few say nothing of the others. Chosen, unmeasured. */
#define MADE_LEAST 64u
/* So much more has to be cold than is missing, for a store grows by what goes there. Chosen, unmeasured. */
#define STORE_SHARE 4u
/* A look ends after so many blocks: some 2 us each where nothing is taken. */
#define LOOK_MAX_BLOCKS UINT64_C(64)
/* After the n-th failure in a row, or n ways round the node's memory that found too little, every 2^n-th pass looks or makes room. */
#define MAX_BACKOFF 7u

static uint32_t shortfall(const struct mm_node *node)
{
    uint32_t want = node->pool.wmark[WMARK_HIGH] + BLOCK_PAGES, have = pool_nr_free(&node->pool);
    return want - MIN_OF(want, have);
}

bool collapse_has_room(const struct mm_node *node)
{
    return shortfall(node) == 0;
}

static void back_off(struct collapse_room *room)
{
    room->nr_failures = (uint8_t)MIN_OF(room->nr_failures + 1u, MAX_BACKOFF);
    room->passes_to_wait = (uint8_t)(1u << room->nr_failures);
}

/*
 * Pages of standby, from the tail on, that may go: at most @most. What was evicted for room has used up as much of what
 * reclaim's own work allows for, and is no work of its own.
 */
static uint32_t known_cold(struct mm_host *host, unsigned which, uint32_t most)
{
    const struct mm_node *node = &host->node[which];
    const struct collapse_room *room = &node->room;
    uint64_t cold = lru_nr_marked(host, which, most);
    uint64_t stolen = counter_read(&node->nr_stolen) - room->stolen, used = 2 * (uint64_t)room->spent;
    uint64_t mistakes = counter_read(&host->lru.nr_mistakes) - room->mistakes;
    if (stolen > used && mistakes * MISTAKE_SHARE <= stolen)
        cold += stolen - used;
    uint64_t standby = counter_read(&node->nr_standby), refused = counter_read(&node->nr_refused);
    cold = MIN_OF(cold, standby - MIN_OF(standby, refused));
    return (uint32_t)MIN_OF(cold, (uint64_t)most);
}

/*
 * Whether what comes to standby stays there long enough for a touch to say whether it is in use. Where reclaim is quicker, it
 * would be stored before that, and be missed.
 */
static bool is_quiet(const struct mm_node *node)
{
    uint64_t stolen = counter_read(&node->nr_stolen) - node->room.stolen - node->room.spent;
    return stolen + node->room.stolen_lately <= (counter_read(&node->nr_standby) + BLOCK_PAGES) / 2;
}

/*
 * Of the node's pages, as many as the trials of this round pay for go home, block by block. When all blocks have been
 * passed, it is time to see what stays at home. False: the next look is to go on, because no trial was left, or there was
 * little to take.
 */
static bool look(struct mm_thread *thread, unsigned which)
{
    struct mm_node *node = &thread->host->node[which];
    struct collapse_room *room = &node->room;
    uint64_t all = counter_read(&thread->host->lru.nr_active), most = MIN_OF(all, LOOK_MAX_BLOCKS), left, scanned = 0;
    uint32_t taken = 0, paid = 0;
    for (left = most; left > 0; left--) {
        if (taken >= paid && !collapse_take_trial(thread->host))
            break;
        paid = taken / BLOCK_PAGES * BLOCK_PAGES + BLOCK_PAGES;
        taken += lru_look_next(thread, which, &left, &scanned);
    }
    event_add(thread->host, EV_pgscan_khugepaged, scanned);
    room->passed += most - left;
    if (room->passed >= all) {
        room->passed = 0;
        room->nr_rounds = (uint8_t)MIN_OF(room->nr_rounds + 1u, MAX_BACKOFF);
        room->passes_to_look = (uint8_t)(NR_STANDBY_MARKS + (1u << room->nr_rounds));
    }
    return paid > 0 && (left > 0 || room->passes_to_look);
}

/* Its pages came back when they were taken, on average, and one of them not long ago. */
static bool came_back_lately(const struct block *block, uint64_t marked_ns)
{
    unsigned ages = 0;
    for (unsigned i = 0; i < BLOCK_PAGES; i++) {
        struct s2_entry entry = pte_read(block, i);
        ages += entry.state == S2_RESIDENT ? entry.age : 0;
    }
    return ages >= block->nr_resident && block->access.whole.last_ns >= marked_ns;
}

/* All of it was taken, and came back in less time than what is known to be cold has been idle. */
static bool passed_trial(const struct block *block, uint64_t marked_ns)
{
    const struct mm_host *host = block->vm->host;
    uint64_t last_ns = block->access.whole.last_ns, home_ns = block->access.home_ns;
    return block->on_trial && last_ns >= home_ns && last_ns - home_ns <= host->ops->clock_ns(host->ops_ctx) - marked_ns;
}

/*
 * Whether the block, nearly all in the guest, is known to be hot: all of it was taken once, and is back. Where that is not
 * so, it goes home to be seen; what stays there is cold.
 */
static bool is_proved_hot(struct mm_thread *thread, struct block *block)
{
    uint64_t marked_ns = thread->host->collapse.mark_ns[NR_STANDBY_MARKS - 1];
    unsigned node;
    lock_acquire(&block->lock);
    bool fits = pmd_read(block).state == S2_TABLE && collapse_fits(block, &node);
    bool hot = fits && (passed_trial(block, marked_ns) || came_back_lately(block, marked_ns));
    if (fits && !hot && is_quiet(&block->vm->host->node[node]) && collapse_take_trial(thread->host)) {
        event_add(thread->host, EV_pgscan_khugepaged, block->nr_resident);
        int err = lru_take_block(thread, block);
        (void)err; /* what the host does not move is not tried */
        block->on_trial = true;
        if (block->nr_resident == 0)
            lru_del_block(thread->host, block);
    }
    lock_release(&block->lock);
    return hot;
}

bool collapse_make_room(struct mm_thread *thread, struct block *block, unsigned which)
{
    struct mm_host *host = thread->host;
    struct mm_node *node = &host->node[which];
    struct collapse_room *room = &node->room;
    uint32_t need = shortfall(node);
    /* below min, faults reclaim for themselves: whatever comes free is spoken for */
    if (room->dry || room->passes_to_wait || pool_nr_free(&node->pool) < node->pool.wmark[WMARK_MIN])
        return false;
    need += need / STORE_SHARE;
    if (known_cold(host, which, need) < need) {
        room->dry = room->passes_to_look || !is_quiet(node) || look(thread, which); /* else in the next round */
        return false;
    }
    room->passed = room->nr_rounds = room->passes_to_look = 0;
    if (!is_proved_hot(thread, block))
        return false;
    while ((need = shortfall(node)) > 0 && known_cold(host, which, need) >= need) {
        uint32_t freed = evict_standby(thread, which, need, RECLAIM_KHUGEPAGED);
        room->spent += freed;
        room->made += freed;
        if (!freed) {
            back_off(room); /* there is nowhere to go */
            break;
        }
    }
    return need == 0;
}

/* A pass is over: were the evictions of the last ones wrong? */
static void judge(const struct mm_host *host, const struct mm_node *node, struct collapse_room *room)
{
    uint64_t mistakes = counter_read(&host->lru.nr_mistakes) - room->mistakes;
    uint64_t stolen = counter_read(&node->nr_stolen) - room->stolen;
    uint32_t made = room->made;
    room->made = made - (made + 7) / 8;
    room->stolen_lately = room->stolen_lately / 2 + stolen - room->spent;
    if (made < MADE_LEAST)
        return;
    if (mistakes * MISTAKE_SHARE > MAX_OF(stolen, (uint64_t)made)) {
        room->made = 0;
        back_off(room);
    } else if (room->made < MADE_LEAST) {
        room->nr_failures = 0;
    }
}

void collapse_end_pass(struct mm_host *host, uint64_t now_ns)
{
    uint64_t *mark_ns = host->collapse.mark_ns;
    for (unsigned i = NR_STANDBY_MARKS - 1; i > 0; i--)
        mark_ns[i] = mark_ns[i - 1];
    mark_ns[0] = now_ns;
    for (unsigned n = 0; n < host->nr_nodes; n++) {
        struct collapse_room *room = &host->node[n].room;
        room->passes_to_wait = (uint8_t)(room->passes_to_wait - (room->passes_to_wait > 0));
        room->passes_to_look = (uint8_t)(room->passes_to_look - (room->passes_to_look > 0));
        judge(host, &host->node[n], room);
        room->stolen = counter_read(&host->node[n].nr_stolen);
        room->mistakes = counter_read(&host->lru.nr_mistakes);
        room->spent = 0;
        room->dry = false;
        lru_mark(host, n);
    }
}
