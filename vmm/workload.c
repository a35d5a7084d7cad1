/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table says for each step which keys it takes and what they are when they are not given; the parser, the errors
 * and the checks read that table.
 *
 * The parser follows the workload: pages are filled from 0 without holes, so one number says which exist at each step,
 * and a step that would reach beyond is refused before any VM is made.
 */
#include "vmm/workload.h"

#include "vmm/size.h"
#include "vmm/suggest.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_THETA_MILLI 2000
#define MAX_COUNT UINT64_C(1000000000000)
#define MAX_PASSES 1000000
#define MAX_WORK 1000000
#define MAX_TURN (EBB_MAX_CPUS - 1)
#define MAX_IDLE_MS UINT64_C(86400000)

enum key {
    KEY_PATTERN,
    KEY_START,
    KEY_OPS,
    KEY_WRITE,
    KEY_THETA,
    KEY_ORDER,
    KEY_PASSES,
    KEY_TAKE,
    KEY_SKIP,
    KEY_WORK,
    KEY_TURN,
    NR_KEYS
};

static const char *const key_names[NR_KEYS + 1] = {"pattern", "start", "ops",  "write", "theta", "order",
                                                   "passes",  "take",  "skip", "work",  "turn",  NULL};
static const char *const pattern_names[] = {"zero", "same", "text", "random", "mixed", NULL};
static const char *const step_names[] = {"fill", "verify", "zipf", "stream", "idle", "free", "churn", "hostile", NULL};

static const struct {
    unsigned keys; /* bits of enum key */
    struct ebb_step defaults;
} step_kinds[EBB_NR_STEP_KINDS] = {
    [EBB_STEP_FILL] = {1u << KEY_PATTERN | 1u << KEY_START, {.pattern = EBB_PATTERN_MIXED}},
    [EBB_STEP_VERIFY] = {1u << KEY_START, {0}},
    [EBB_STEP_ZIPF] = {1u << KEY_OPS | 1u << KEY_WRITE | 1u << KEY_THETA | 1u << KEY_ORDER | 1u << KEY_WORK |
                           1u << KEY_START,
                       {.ops = 100000, .write_pct = 20, .theta_milli = 990}},
    [EBB_STEP_STREAM] = {1u << KEY_PASSES | 1u << KEY_WRITE | 1u << KEY_TAKE | 1u << KEY_SKIP | 1u << KEY_TURN |
                             1u << KEY_START,
                         {.passes = 1, .take_pages = 1}},
    [EBB_STEP_IDLE] = {0, {0}},
    [EBB_STEP_FREE] = {0, {0}},
    [EBB_STEP_CHURN] = {1u << KEY_OPS | 1u << KEY_START, {.ops = 1000}},
    [EBB_STEP_HOSTILE] = {1u << KEY_OPS, {.ops = 1000}},
};

/* Where the parser is. */
struct parser {
    uint64_t usable_pages;
    uint64_t nr_filled; /* pages that exist before the step being parsed */
    unsigned number;    /* of the step, from 1 */
    const char *name;   /* of the step, "" as long as it is not known */
    uint64_t start;     /* pages; start_given tells whether the text had it */
    bool start_given;
    struct diag *diag;
};

const char *workload_step_name(uint32_t kind)
{
    return step_names[kind];
}

void workload_split_memory(uint64_t memory_bytes, uint64_t *low_bytes, uint64_t *high_bytes)
{
    *low_bytes = MIN_OF(memory_bytes, (uint64_t)EBB_LOW_BYTES);
    *high_bytes = memory_bytes - *low_bytes;
}

/* --- errors ---------------------------------------------------------------------------------------- */

/* "workload step 2 (zipf): ...". Returns -1. */
__attribute__((format(printf, 2, 3))) static int refuse(const struct parser *p, const char *format, ...)
{
    char text[300];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (p->name[0])
        return diag_set(p->diag, EXIT_USAGE, "workload step %u (%s): %s", p->number, p->name, text);
    return diag_set(p->diag, EXIT_USAGE, "workload step %u: %s", p->number, text);
}

static void list_words(char *out, size_t bytes, const char *const words[], unsigned mask)
{
    size_t at = 0;

    out[0] = 0;
    for (unsigned i = 0; words[i]; i++) {
        if (!(mask >> i & 1))
            continue;
        int length = snprintf(out + at, bytes - at, "%s%s", at > 0 ? ", " : "", words[i]);
        at += MIN_OF((size_t)length, bytes - at - 1);
    }
}

static int refuse_word(const struct parser *p, const char *what, const char *word, const char *const words[],
                       unsigned mask)
{
    char list[160], hint[SUGGEST_TEXT];

    list_words(list, sizeof(list), words, mask);
    return refuse(p, "no %s is called \"%.40s\"%s (there is: %s)", what, word, suggest_text(hint, word, words), list);
}

/* --- words and numbers ----------------------------------------------------------------------------- */

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    char *end = text + strlen(text);
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    *end = 0;
    return text;
}

/* Cuts @text at the first @separator; returns what follows, or NULL. */
static char *cut(char *text, char separator)
{
    char *at = strchr(text, separator);

    if (at)
        *at++ = 0;
    return at;
}

static int find_word(const char *word, const char *const words[])
{
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], word) == 0)
            return i;
    }
    return -1;
}

static int parse_pages(const struct parser *p, const char *what, const char *text, uint64_t *pages)
{
    uint64_t bytes;

    if (size_parse(text, &bytes))
        return refuse(p, "%s \"%.40s\" is not a size: write 200M or 1G", what, text);
    if (bytes % PAGE_BYTES != 0)
        return refuse(p, "%s %.40s is not a multiple of 4K, the size of a page", what, text);
    *pages = bytes / PAGE_BYTES;
    return 0;
}

static int parse_count(const struct parser *p, const char *what, const char *text, uint64_t most, uint64_t *out)
{
    char *end;

    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno || value > most)
        return refuse(p, "%s=%.40s: give a number from 0 to %" PRIu64, what, text, most);
    *out = value;
    return 0;
}

/* "0.99" in thousandths, exactly: at most three digits behind the point. */
static int parse_theta(const struct parser *p, const char *text, uint32_t *milli)
{
    uint32_t value = 0, digits = 0;
    bool point = false;
    const char *at = text;

    for (; *at && digits < 3 && value <= MAX_THETA_MILLI; at++) {
        if (*at == '.' && !point) {
            point = true;
            continue;
        }
        if (!isdigit((unsigned char)*at))
            break;
        value = value * 10 + (uint32_t)(*at - '0');
        digits += point;
    }
    for (; digits < 3; digits++)
        value *= 10;
    if (*at || !isdigit((unsigned char)at[-(at > text)]) || value > MAX_THETA_MILLI)
        return refuse(p, "theta=%.40s: give a number from 0 (uniform) to 2, with at most three digits behind the point",
                      text);
    *milli = value;
    return 0;
}

/* "2s", "500ms", "1m" in ns. */
static int parse_time(const struct parser *p, const char *text, uint64_t *ns)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}};
    char *end;

    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    for (size_t i = 0; i < ARRAY_LEN(units) && isdigit((unsigned char)text[0]) && !errno; i++) {
        if (strcmp(end, units[i].unit) == 0 && value > 0 && value <= MAX_IDLE_MS / units[i].ms) {
            *ns = value * units[i].ms * UINT64_C(1000000);
            return 0;
        }
    }
    return refuse(p, "\"%.40s\" is not a time: write 500ms, 2s or 1m, at most a day", text);
}

/* take and skip. */
static int parse_part(const struct parser *p, const char *what, const char *text, uint32_t *out)
{
    uint64_t pages;

    if (parse_pages(p, what, text, &pages))
        return -1;
    if (pages > p->usable_pages || pages == 0)
        return refuse(p, "%s=%.40s: give 4K or more, and no more than the guest has", what, text);
    *out = (uint32_t)pages;
    return 0;
}

/* --- one step -------------------------------------------------------------------------------------- */

static int parse_value(struct parser *p, struct ebb_step *step, enum key key, const char *value)
{
    static const char *const orders[] = {"scattered", "linear", NULL};
    uint64_t number;
    int word;

    switch (key) {
    case KEY_PATTERN:
        word = find_word(value, pattern_names);
        if (word < 0)
            return refuse_word(p, "pattern", value, pattern_names, UINT32_MAX);
        step->pattern = (uint32_t)word;
        return 0;
    case KEY_START:
        p->start_given = true;
        return parse_pages(p, "start", value, &p->start);
    case KEY_OPS:
        return parse_count(p, "ops", value, MAX_COUNT, &step->ops);
    case KEY_WRITE:
        if (parse_count(p, "write", value, 100, &number))
            return -1;
        step->write_pct = (uint32_t)number;
        return 0;
    case KEY_THETA:
        return parse_theta(p, value, &step->theta_milli);
    case KEY_ORDER:
        word = find_word(value, orders);
        if (word < 0)
            return refuse_word(p, "order", value, orders, UINT32_MAX);
        step->linear = (uint32_t)word;
        return 0;
    case KEY_TAKE:
        return parse_part(p, "take", value, &step->take_pages);
    case KEY_SKIP:
        return parse_part(p, "skip", value, &step->skip_pages);
    case KEY_WORK:
        if (parse_count(p, "work", value, MAX_WORK, &number))
            return -1;
        step->work = (uint32_t)number;
        return 0;
    case KEY_TURN:
        if (parse_count(p, "turn", value, MAX_TURN, &number))
            return -1;
        step->turn = (uint32_t)number;
        return 0;
    default:
        if (parse_count(p, "passes", value, MAX_PASSES, &number))
            return -1;
        step->passes = (uint32_t)number;
        return 0;
    }
}

/* "key=value,key=value"; @text may be NULL. */
static int parse_keys(struct parser *p, struct ebb_step *step, char *text)
{
    unsigned allowed = step_kinds[step->kind].keys, seen = 0;

    while (text) {
        char *rest = cut(text, ',');
        char *value = cut(text, '=');
        const char *name = trim(text);
        int key = find_word(name, key_names);

        if (allowed == 0)
            return refuse(p, "takes no keys, but found \"%.40s\"", name);
        if (key < 0 || !(allowed >> key & 1))
            return refuse_word(p, "key of it", name, key_names, allowed);
        if (!value || !*(value = trim(value)))
            return refuse(p, "%s needs a value: %s=...", name, name);
        if (seen >> key & 1)
            return refuse(p, "%s is given twice", name);
        seen |= 1u << key;
        if (parse_value(p, step, (enum key)key, value))
            return -1;
        text = rest;
    }
    return 0;
}

static int refuse_size(const struct parser *p, uint64_t pages, uint64_t most_pages)
{
    char want[SIZE_TEXT], most[SIZE_TEXT];

    size_option(want, pages * PAGE_BYTES);
    size_option(most, most_pages * PAGE_BYTES);
    if (p->start_given)
        return refuse(p, "ends at %s, beyond the %s that are there", want, most);
    return refuse(p, "wants %s, but only %s are there", want, most);
}

/* fill may end anywhere in the guest's memory, but leaves no hole. */
static int place_fill(struct parser *p, struct ebb_step *step, const uint64_t *size)
{
    char filled[SIZE_TEXT];

    if (p->start > p->nr_filled) {
        size_option(filled, p->nr_filled * PAGE_BYTES);
        return refuse(p, "start leaves a hole: %s are filled, start at %s or below", filled, filled);
    }
    uint64_t pages = size ? *size : p->usable_pages - p->start;
    if (pages > p->usable_pages - p->start)
        return refuse_size(p, p->start_given ? p->start + pages : pages, p->usable_pages);
    step->start_pages = (uint32_t)p->start;
    step->size_pages = (uint32_t)pages;
    p->nr_filled = MAX_OF(p->nr_filled, p->start + pages);
    return 0;
}

/* The other steps work on what is filled: from its start, or for free from its end. */
static int place_on_filled(struct parser *p, struct ebb_step *step, const uint64_t *size)
{
    if (p->nr_filled == 0)
        return refuse(p, "nothing is filled: put a fill step before it");
    if (p->start >= p->nr_filled)
        return refuse_size(p, p->start, p->nr_filled);
    uint64_t pages = size ? *size : p->nr_filled - p->start;
    if (pages > p->nr_filled - p->start)
        return refuse_size(p, p->start_given ? p->start + pages : pages, p->nr_filled);
    step->start_pages = (uint32_t)p->start;
    step->size_pages = (uint32_t)pages;
    if (step->kind == EBB_STEP_FREE) {
        step->start_pages = (uint32_t)(p->nr_filled - pages);
        p->nr_filled -= pages;
    }
    return 0;
}

static int parse_size(struct parser *p, struct ebb_step *step, const char *text)
{
    uint64_t pages = 0;

    if (step->kind == EBB_STEP_IDLE) {
        if (!text)
            return refuse(p, "needs a time: idle:2s");
        return parse_time(p, text, &step->ns);
    }
    if (step->kind == EBB_STEP_HOSTILE)
        return text ? refuse(p, "takes no size: hostile,ops=1000") : 0;
    if (text && parse_pages(p, "size", text, &pages))
        return -1;
    if (text && pages == 0)
        return refuse(p, "a size of 0 does nothing: leave the step out");
    if (step->kind == EBB_STEP_FILL)
        return place_fill(p, step, text ? &pages : NULL);
    return place_on_filled(p, step, text ? &pages : NULL);
}

/* @text: "name[:size][,key=value...]"; it is cut up. */
static int parse_step(struct parser *p, char *text, struct ebb_step *step)
{
    char *keys = cut(text, ',');
    char *size = cut(text, ':');
    const char *name = trim(text);
    int kind = find_word(name, step_names);

    p->name = "";
    p->start = 0;
    p->start_given = false;
    if (!*name)
        return refuse(p, "is empty");
    if (kind < 0)
        return refuse_word(p, "step", name, step_names, UINT32_MAX);
    p->name = name;
    *step = step_kinds[kind].defaults;
    step->kind = (uint32_t)kind;
    step->seed = UINT64_C(0x9e3779b97f4a7c15) * p->number; /* any number; the same in each run */
    if (size && !*(size = trim(size)))
        return refuse(p, "nothing stands behind the colon");
    if (parse_keys(p, step, keys))
        return -1;
    return parse_size(p, step, size);
}

int workload_parse(const char *text, uint64_t memory_bytes, struct workload *out, struct diag *diag)
{
    struct workload workload = {0};
    struct parser p = {.diag = diag, .name = ""};
    uint64_t low, high;
    char copy[sizeof(workload.text)];

    if (strlen(text) >= sizeof(copy))
        return diag_set(diag, EXIT_USAGE, "the workload is longer than %zu characters", sizeof(copy) - 1);
    strcpy(copy, text);
    strcpy(workload.text, text);
    workload_split_memory(memory_bytes, &low, &high);
    p.usable_pages = ebb_usable_pages(low, high);
    for (char *step = copy, *rest; step; step = rest) {
        rest = cut(step, ';');
        p.number = workload.nr_steps + 1;
        if (workload.nr_steps == WORKLOAD_MAX_STEPS)
            return diag_set(diag, EXIT_USAGE, "the workload has more than %d steps", WORKLOAD_MAX_STEPS);
        if (parse_step(&p, step, &workload.steps[workload.nr_steps++]))
            return -1;
    }
    *out = workload;
    return 0;
}

const char *workload_help(void)
{
    return "A workload is a list of steps: STEP[;STEP...], STEP = name[:size][,key=value...]\n"
           "\n"
           "  fill[:SIZE]    write pages; without size all the guest has\n"
           "                 pattern=zero|same|text|random|mixed (mixed), start=SIZE (0)\n"
           "  verify[:SIZE]  check every word of every page\n"
           "                 start=SIZE (0)\n"
           "  zipf[:SIZE]    skewed accesses: a read checks the header and a sample, a write makes the page new\n"
           "                 ops=N (100000), write=PERCENT (20), theta=0..2 (0.99), order=scattered|linear "
           "(scattered),\n"
           "                 work=N (0): rounds of computing before each access, some ns each; start=SIZE (0)\n"
           "  stream[:SIZE]  sequential passes over the pages\n"
           "                 passes=N (1), write=PERCENT (0), start=SIZE (0); take=SIZE,skip=SIZE: touches so\n"
           "                 much, leaves out so much, and so on; turn=N (0): each vCPU takes the share of the\n"
           "                 vCPU N after it\n"
           "  churn[:SIZE]   free a random run of up to 64 pages, take other ones and fill them\n"
           "                 ops=N (1000), start=SIZE (0)\n"
           "  free[:SIZE]    give the last pages back to the guest's free lists; fill may take them again\n"
           "  idle:TIME      sleep: 500ms, 2s, 1m\n"
           "  hostile        attack the machine's virtio devices; Ebb and the workload's pages must not mind\n"
           "                 ops=N (1000)\n"
           "\n"
           "Steps other than fill work on what is filled, without size on all of it. With several vCPUs they share "
           "each\n"
           "step and wait for one another before the next.\n"
           "\n"
           "Patterns: zero; same (one word, repeated); text (compresses about 3:1); random (does not); mixed (of 16 "
           "pages\n"
           "2 zero, 2 same, 8 text, 4 random). Each page but zero carries its address, its generation and a checksum, "
           "so\n"
           "that a lost, stale, torn or swapped-over page is found and named.\n"
           "\n"
           "Example: fill:200M,pattern=mixed;zipf:200M,ops=200000,write=30;verify\n";
}
