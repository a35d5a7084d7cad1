/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded guest on /dev/kvm with memory enough: every step and pattern comes out right, a machine stops at any
 * moment, and pages that the host falsifies are found and named.
 */
#include <check.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/fake/fail_alloc.h"
#include "tests/fake/program.h"
#include "vmm/machine.h"

#define MIB (UINT64_C(1) << 20)
#define MEMORY_BYTES (64 * MIB)
#define MIB_PAGES 256u
#define PAGE_WORDS (PAGE_BYTES / 8)

static const char *const patterns[] = {"zero", "same", "text", "random", "mixed"};
#define NR_PATTERNS 5

struct rig {
    struct memhost *mh;
    struct machine *machine;
    pthread_mutex_t lock;
    char console[16384]; /* guarded by lock */
};

static void keep_line(void *ctx, const char *line)
{
    struct rig *rig = ctx;

    pthread_mutex_lock(&rig->lock);
    size_t at = strlen(rig->console);
    snprintf(rig->console + at, sizeof(rig->console) - at, "%s\n", line);
    pthread_mutex_unlock(&rig->lock);
}

static void rig_create(struct rig *rig, unsigned nr_cpus, const char *text)
{
    struct memhost_config host = {.backend = BACKEND_EBB, .mm = {.budget_bytes = 2 * MEMORY_BYTES, .thp = true}};
    struct diag diag = {0};
    struct workload workload;
    struct machine_config config = {
        .name = "test",
        .memory_bytes = MEMORY_BYTES,
        .nr_cpus = nr_cpus,
        .workload = &workload,
        .on_line = keep_line,
        .ctx = rig,
    };

    memset(rig, 0, sizeof(*rig));
    pthread_mutex_init(&rig->lock, NULL);
    ck_assert_msg(workload_parse(text, MEMORY_BYTES, &workload, &diag) == 0, "%s", diag.text);
    ck_assert_msg(memhost_create(&host, &rig->mh, &diag) == 0, "%s", diag.text);
    ck_assert_msg(machine_create(rig->mh, &config, &rig->machine, &diag) == 0, "%s", diag.text);
}

static void rig_start(struct rig *rig)
{
    struct diag diag = {0};

    ck_assert_msg(machine_start(rig->machine, &diag) == 0, "%s", diag.text);
}

static void rig_init(struct rig *rig, unsigned nr_cpus, const char *text)
{
    rig_create(rig, nr_cpus, text);
    rig_start(rig);
}

static void rig_fini(struct rig *rig)
{
    machine_destroy(rig->machine);
    memhost_destroy(rig->mh);
    pthread_mutex_destroy(&rig->lock);
}

static void sleep_ms(unsigned ms)
{
    struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};

    nanosleep(&time, NULL);
}

/* --- every step and pattern ------------------------------------------------------------------------ */

/* _i: pattern and one or two vCPUs. */
START_TEST(test_machine_every_step_comes_out_right)
{
    static const char *const names[] = {"fill", "verify", "zipf", "stream", "churn", "free", "fill", "idle", "verify"};
    struct rig rig;
    char text[400];
    unsigned nr_cpus = 1 + (unsigned)_i / NR_PATTERNS;
    const char *pattern = patterns[_i % NR_PATTERNS];

    snprintf(text, sizeof(text),
             "fill:24M,pattern=%s;verify;zipf:20M,ops=10000,write=30,start=2M;stream,passes=2,write=20;churn,ops=200;"
             "free:8M;fill:30M,pattern=%s;idle:10ms;verify",
             pattern, pattern);
    rig_init(&rig, nr_cpus, text);
    const struct machine_result *result = machine_join(rig.machine);
    ck_assert_msg(result->state == MACHINE_DONE, "%s", result->reason);
    ck_assert_str_eq(result->reason, "");
    ck_assert_uint_eq(result->pages_bad, 0);
    ck_assert_uint_eq(result->pages_verified, (24 + 30) * MIB_PAGES);
    ck_assert_uint_eq(result->nr_unanswered, 0);
    ck_assert_uint_eq(result->nr_steps, 9);
    for (unsigned i = 0; i < 9; i++)
        ck_assert_str_eq(result->steps[i].name, names[i]);
    ck_assert_uint_eq(result->steps[0].pages, 24 * MIB_PAGES);
    ck_assert_uint_eq(result->steps[2].ops, 10000);
    ck_assert_uint_eq(result->steps[3].pages, 2 * 24 * MIB_PAGES);
    ck_assert_uint_eq(result->steps[4].ops, 200);
    ck_assert_uint_eq(result->steps[5].pages, 8 * MIB_PAGES);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_machine_fills_its_memory_to_the_last_page)
{
    struct rig rig;
    uint64_t usable = ebb_usable_pages(MEMORY_BYTES, 0);

    rig_init(&rig, 1, "fill,pattern=same;verify;free;fill;churn,ops=50;verify;zipf,ops=2000,order=linear,theta=0");
    const struct machine_result *result = machine_join(rig.machine);
    ck_assert_msg(result->state == MACHINE_DONE, "%s", result->reason);
    ck_assert_uint_eq(result->pages_verified, 2 * usable);
    rig_fini(&rig);
}
END_TEST

/* _i + 1: vCPUs. The pattern of what is touched begins with the step's first page, whoever has it. */
START_TEST(test_machine_stream_touches_what_it_is_to_take)
{
    struct rig rig;

    rig_init(&rig, 1 + (unsigned)_i,
             "fill:16M;stream:15M,start=1M,take=4K,skip=8K,passes=2,write=10;stream:16M,take=1M,skip=1M;stream,take=2M;"
             "zipf,ops=1000,work=100;verify");
    const struct machine_result *result = machine_join(rig.machine);
    ck_assert_msg(result->state == MACHINE_DONE, "%s", result->reason);
    ck_assert_uint_eq(result->steps[1].pages, 2 * 5 * MIB_PAGES);
    ck_assert_uint_eq(result->steps[2].pages, 8 * MIB_PAGES);
    ck_assert_uint_eq(result->steps[3].pages, 16 * MIB_PAGES);
    ck_assert_uint_eq(result->steps[4].ops, 1000);
    ck_assert_uint_eq(result->pages_bad, 0);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_machine_console_shows_the_zones)
{
    struct rig rig;
    static const char *const words[] = {"ebbguest\n", "zone DMA: from 0x100000, 3840 pages", "zone DMA32: from 0x",
                                        "zone Movable: from 0x"};

    rig_init(&rig, 1, "fill:1M");
    machine_join(rig.machine);
    for (unsigned i = 0; i < ARRAY_LEN(words); i++)
        ck_assert_msg(strstr(rig.console, words[i]), "no \"%s\" in: %s", words[i], rig.console);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_machine_done_fd_and_progress_follow_the_run)
{
    struct rig rig;
    struct pollfd done;
    unsigned step;
    uint64_t at, total;

    rig_init(&rig, 2, "fill:4M;zipf,ops=5000");
    done = (struct pollfd){.fd = machine_done_fd(rig.machine), .events = POLLIN};
    do {
        machine_progress(rig.machine, &step, &at, &total);
        ck_assert_uint_le(step, 1);
        ck_assert_uint_eq(total, step == 0 ? 4 * MIB_PAGES : 5000);
        ck_assert_uint_le(at, total);
    } while (poll(&done, 1, 5) == 0);
    machine_progress(rig.machine, &step, &at, &total);
    ck_assert_uint_eq(step, 1);
    ck_assert_uint_eq(at, 5000);
    ck_assert_int_eq(machine_join(rig.machine)->state, MACHINE_DONE);
    rig_fini(&rig);
}
END_TEST

/* --- stopping -------------------------------------------------------------------------------------- */

static const struct {
    unsigned after_ms;
    const char *workload;
} stops[] = {
    {0, "fill"},
    {1, "fill"},
    {3, "fill;zipf,ops=1000000000"},
    {20, "fill;zipf,ops=1000000000"},
    {100, "fill;zipf,ops=1000000000"},
    {300, "fill:8M;churn,ops=1000000000"},
    {50, "idle:1m"}, /* vCPU 0 sleeps in a port, the other one waits at the barrier */
    {200, "fill:1M;stream,passes=1000000"},
};

START_TEST(test_machine_stops_at_any_moment)
{
    struct rig rig;
    struct timespec from, to;

    rig_init(&rig, 1 + (unsigned)_i % 2, stops[_i / 2].workload);
    sleep_ms(stops[_i / 2].after_ms);
    clock_gettime(CLOCK_MONOTONIC, &from);
    machine_stop(rig.machine);
    machine_stop(rig.machine);
    const struct machine_result *result = machine_join(rig.machine);
    clock_gettime(CLOCK_MONOTONIC, &to);
    ck_assert_int_eq(result->state, MACHINE_STOPPED);
    ck_assert_uint_eq(result->pages_bad, 0);
    ck_assert_int_lt(to.tv_sec - from.tv_sec, 3); /* one second is promised; a busy test machine gets three */
    rig_fini(&rig);
}
END_TEST

/* As when another VM, started before it, takes its memory. */
START_TEST(test_machine_stopped_before_its_start_ran_for_no_time)
{
    struct rig rig;

    rig_create(&rig, 2, "fill:1M");
    machine_stop(rig.machine);
    rig_start(&rig);
    const struct machine_result *result = machine_join(rig.machine);
    ck_assert_int_eq(result->state, MACHINE_STOPPED);
    ck_assert_uint_eq(result->run_ns, 0);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_machine_destroy_without_stop_stops)
{
    struct rig rig;

    rig_init(&rig, 2, "fill;zipf,ops=1000000000");
    sleep_ms(20);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_machine_bad_config_is_refused)
{
    struct memhost_config host = {.backend = BACKEND_EBB, .mm = {.budget_bytes = MEMORY_BYTES}};
    struct workload workload;
    struct diag diag = {0};
    struct memhost *mh;
    struct machine *machine;
    struct machine_config config = {.name = "test", .nr_cpus = 1, .workload = &workload, .on_line = keep_line};
    static const struct {
        uint64_t bytes;
        unsigned nr_cpus;
        const char *word;
    } wrong[] = {{30 * MIB, 1, "32M to 256G"},
                 {UINT64_C(1) << 40, 1, "32M to 256G"},
                 {33 * MIB, 1, "multiple of 2M"},
                 {64 * MIB, 0, "1 to 64 CPUs"},
                 {64 * MIB, 65, "1 to 64 CPUs"}};

    ck_assert_msg(memhost_create(&host, &mh, &diag) == 0, "%s", diag.text);
    ck_assert_int_eq(workload_parse("fill:1M", MEMORY_BYTES, &workload, &diag), 0);
    for (unsigned i = 0; i < ARRAY_LEN(wrong); i++) {
        config.memory_bytes = wrong[i].bytes;
        config.nr_cpus = wrong[i].nr_cpus;
        diag = (struct diag){0};
        ck_assert_int_eq(machine_create(mh, &config, &machine, &diag), -1);
        ck_assert_int_eq(diag.code, EXIT_USAGE);
        ck_assert_msg(strstr(diag.text, wrong[i].word), "%s", diag.text);
    }
    memhost_destroy(mh);
}
END_TEST

START_TEST(test_machine_create_survives_each_failed_allocation)
{
    /* workers allocate when they like: the failure would be theirs */
    struct memhost_config host = {.backend = BACKEND_EBB, .mm = {.budget_bytes = MEMORY_BYTES}, .no_workers = true};
    struct workload workload;
    struct diag diag = {0};
    struct memhost *mh;
    struct machine *machine;
    struct machine_config config = {
        .name = "test", .memory_bytes = MEMORY_BYTES, .nr_cpus = 2, .workload = &workload, .on_line = keep_line};
    bool failed = true;

    ck_assert_msg(memhost_create(&host, &mh, &diag) == 0, "%s", diag.text);
    ck_assert_int_eq(workload_parse("fill:1M", MEMORY_BYTES, &workload, &diag), 0);
    for (long n = 1; failed; n++) {
        diag = (struct diag){0};
        fail_alloc_at(n);
        int err = machine_create(mh, &config, &machine, &diag);
        failed = fail_alloc_fired();
        fail_alloc_at(-1);
        ck_assert_msg(!failed || err == -1, "allocation %ld", n);
        ck_assert_msg(failed || err == 0, "%s", diag.text);
        ck_assert_int_eq(failed, diag.text[0] != 0);
    }
    machine_destroy(machine);
    memhost_destroy(mh);
}
END_TEST

/* --- falsified pages ------------------------------------------------------------------------------- */

enum { TORN, SWAPPED, LOST, STALE, OTHER, NR_VICTIMS };

/* Waits for the middle of idle step @number. */
static void wait_for_idle(struct rig *rig, unsigned number)
{
    unsigned step;
    uint64_t done, total;

    do {
        sleep_ms(2);
        machine_progress(rig->machine, &step, &done, &total);
        ck_assert_uint_le(step, number);
    } while (step < number);
}

static bool is_idle(struct rig *rig, unsigned number)
{
    unsigned step;
    uint64_t done, total;

    machine_progress(rig->machine, &step, &done, &total);
    return step == number && done < total;
}

static uint64_t *guest_page(struct rig *rig, uint64_t gfn)
{
    return memhost_vm_hva(machine_memory(rig->machine), (gpa_t){gfn << PAGE_SHIFT}, PAGE_BYTES);
}

/* Pages of the workload say their own number: in the header, or in the repeated word. */
static void find_pages(struct rig *rig, bool same, uint64_t gfns[NR_VICTIMS])
{
    unsigned nr = 0;

    for (uint64_t gfn = MEMORY_BYTES / PAGE_BYTES; gfn-- > EBB_META_GPA / PAGE_BYTES && nr < NR_VICTIMS;) {
        const uint64_t *page = guest_page(rig, gfn);

        if ((same ? page[0] : page[1]) >> 32 == gfn)
            gfns[nr++] = gfn;
    }
    ck_assert_uint_eq(nr, NR_VICTIMS);
}

static void falsify(struct rig *rig, const uint64_t gfns[NR_VICTIMS], const uint64_t *older)
{
    ((uint8_t *)guest_page(rig, gfns[TORN]))[2000] ^= 0x10;
    memcpy(guest_page(rig, gfns[SWAPPED]), guest_page(rig, gfns[OTHER]), PAGE_BYTES);
    memset(guest_page(rig, gfns[LOST]), 0, PAGE_BYTES);
    memcpy(guest_page(rig, gfns[STALE]), older, PAGE_BYTES);
}

static void assert_named(const struct rig *rig, uint64_t gfn, const char *what)
{
    char start[80];

    snprintf(start, sizeof(start), "page gpa 0x%" PRIx64 ": expected generation 2, found ", gfn << PAGE_SHIFT);
    const char *line = strstr(rig->console, start);
    ck_assert_msg(line, "no \"%s\" in: %s", start, rig->console);
    ck_assert_msg(strstr(line, what) && strstr(line, what) < strchr(line, '\n'), "no \"%s\" in: %.150s", what, line);
}

/* _i: same, text or random; text with two vCPUs. */
START_TEST(test_machine_falsified_pages_are_found_and_named)
{
    struct rig rig;
    uint64_t gfns[NR_VICTIMS], older[PAGE_WORDS];
    char text[200], swapped[80];
    const char *pattern = patterns[1 + _i];
    bool same = _i == 0, in_time;

    snprintf(text, sizeof(text), "fill:4M,pattern=%s;idle:1500ms;fill:4M,pattern=%s;idle:1500ms;verify;verify", pattern,
             pattern);
    rig_init(&rig, 1 + (_i == 1), text);
    wait_for_idle(&rig, 1);
    find_pages(&rig, same, gfns);
    memcpy(older, guest_page(&rig, gfns[STALE]), PAGE_BYTES);
    in_time = is_idle(&rig, 1);
    wait_for_idle(&rig, 3);
    falsify(&rig, gfns, older);
    ck_assert_msg(in_time && is_idle(&rig, 3), "the test machine is too slow for this test");
    const struct machine_result *result = machine_join(rig.machine);

    ck_assert_int_eq(result->state, MACHINE_FAILED);
    ck_assert_uint_eq(result->pages_bad, 4);
    ck_assert_uint_eq(result->steps[4].pages_bad, 4);
    ck_assert_uint_eq(result->nr_steps, 6); /* it went on */
    ck_assert_msg(strncmp(result->reason, "4 bad pages; the first: page gpa 0x", 35) == 0, "%s", result->reason);
    assert_named(&rig, gfns[TORN], "torn");
    assert_named(&rig, gfns[LOST], "lost");
    assert_named(&rig, gfns[STALE], "found 1: stale");
    snprintf(swapped, sizeof(swapped), "of page gpa 0x%" PRIx64 ": swapped-over", gfns[OTHER] << PAGE_SHIFT);
    assert_named(&rig, gfns[SWAPPED], swapped);
    rig_fini(&rig);
}
END_TEST

/* A zero page has no name to carry: anything that is not zero is torn, or belongs to another page. */
START_TEST(test_machine_dirt_in_a_zero_page_is_found)
{
    struct rig rig;
    uint64_t gfn = MEMORY_BYTES / PAGE_BYTES - 1; /* the highest block is taken first */

    rig_init(&rig, 1, "fill,pattern=zero;idle:1s;verify");
    wait_for_idle(&rig, 1);
    guest_page(&rig, gfn)[77] = 1;
    ck_assert(is_idle(&rig, 1));
    const struct machine_result *result = machine_join(rig.machine);
    ck_assert_int_eq(result->state, MACHINE_FAILED);
    ck_assert_uint_eq(result->pages_bad, 1);
    ck_assert_ptr_nonnull(strstr(rig.console, "page gpa 0x3fff000: expected generation 0, found 0: torn"));
    rig_fini(&rig);
}
END_TEST

/* The guest's own memory falsified: it traps, and the reason says where. */
START_TEST(test_machine_trap_in_the_guest_is_reported)
{
    struct rig rig;
    uint64_t tables = EBB_META_GPA + EBB_META_FIXED_BYTES;
    uint64_t frames = tables + (((MEMORY_BYTES >> 30) + 4) << PAGE_SHIFT);

    rig_init(&rig, 1, "fill:1M;idle:1s;verify");
    wait_for_idle(&rig, 1);
    /* every slot of the workload, wherever the kernel put them: an address that nothing is mapped at */
    for (uint64_t at = frames; at < EBB_META_GPA + 2 * MIB; at += PAGE_BYTES)
        memset(guest_page(&rig, at >> PAGE_SHIFT), 0x7f, PAGE_BYTES);
    ck_assert(is_idle(&rig, 1));
    const struct machine_result *result = machine_join(rig.machine);
    ck_assert_int_eq(result->state, MACHINE_FAILED);
    ck_assert_msg(strstr(result->reason, "vCPU 0: exception 14") && strstr(result->reason, "rip 0xd020"), "%s",
                  result->reason);
    rig_fini(&rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("machine");
    TCase *steps = tcase_create("steps"), *stop = tcase_create("stop"), *wrong = tcase_create("wrong");

    if (!program_has_kvm("the embedded guest on /dev/kvm"))
        return EXIT_SUCCESS;
    tcase_set_timeout(steps, 120);
    tcase_add_loop_test(steps, test_machine_every_step_comes_out_right, 0, 2 * NR_PATTERNS);
    tcase_add_test(steps, test_machine_fills_its_memory_to_the_last_page);
    tcase_add_loop_test(steps, test_machine_stream_touches_what_it_is_to_take, 0, 2);
    tcase_add_test(steps, test_machine_console_shows_the_zones);
    tcase_add_test(steps, test_machine_done_fd_and_progress_follow_the_run);
    suite_add_tcase(suite, steps);
    tcase_set_timeout(stop, 60);
    tcase_add_loop_test(stop, test_machine_stops_at_any_moment, 0, 2 * (int)ARRAY_LEN(stops));
    tcase_add_test(stop, test_machine_stopped_before_its_start_ran_for_no_time);
    tcase_add_test(stop, test_machine_destroy_without_stop_stops);
    tcase_add_test(stop, test_machine_bad_config_is_refused);
    tcase_add_test(stop, test_machine_create_survives_each_failed_allocation);
    suite_add_tcase(suite, stop);
    tcase_set_timeout(wrong, 120);
    tcase_add_loop_test(wrong, test_machine_falsified_pages_are_found_and_named, 0, 3);
    tcase_add_test(wrong, test_machine_dirt_in_a_zero_page_is_found);
    tcase_add_test(wrong, test_machine_trap_in_the_guest_is_reported);
    suite_add_tcase(suite, wrong);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
