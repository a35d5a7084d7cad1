/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests that believe in more memory than there is, run from outside: each way of moving pages, each number of vCPUs and
 * VMs, each degree of overcommit, each pattern and step, each kind of store, and stores that are full. Whatever the
 * figures, every page is right and the budget holds at every moment.
 */
#include "mm/base/types.h"
#include "tests/fake/run_ebb.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES 640

static const char *const transports[] = {"move", "copy"};

/*
 * Runs @line with --json out.json while its memory is watched, and checks whatever a run that went well promises.
 * Returns the JSON; @p is the caller's to program_fini.
 */
static json_t *run_well(struct program *p, const char *line, unsigned nr_vms, uint64_t memory_mib)
{
    char all[LINE_BYTES];

    program_init(p);
    snprintf(all, sizeof(all), "%s --quiet --api none --json out.json", line);
    program_start(p, all);
    uint64_t most = run_watch(p);
    ck_assert_msg(p->code == 0, "ebb %s\nexit code %d\n%s%s", line, p->code, p->out_text, p->err_text);
    ck_assert_str_eq(p->err_text, "");
    json_t *json = run_load(p, "out.json");
    run_check_result(json, nr_vms, memory_mib * RUN_MIB, NULL);
    ck_assert_uint_gt(most, 0);
    ck_assert_uint_le(most, run_number(json, "budget_bytes") + RUN_OVERHEAD_BYTES + nr_vms * RUN_OVERHEAD_VM_BYTES);
    return json;
}

/* Bytes of all VMs at @place. */
static uint64_t sum_of(const json_t *json, const char *place)
{
    const json_t *vms = json_object_get(json, "vms");
    uint64_t sum = 0;

    for (size_t i = 0; i < json_array_size(vms); i++)
        sum += run_number(json_array_get(vms, i), place);
    return sum;
}

static void check_verified(const json_t *json, uint64_t mib)
{
    const json_t *vms = json_object_get(json, "vms");

    for (size_t i = 0; i < json_array_size(vms); i++)
        ck_assert_uint_eq(run_number(json_array_get(vms, i), "pages_verified"), mib * RUN_MIB / PAGE_BYTES);
}

/* --- the matrix ---------------------------------------------------------------------------------------------- */

#define NR_CELLS 32 /* transports, vCPUs, VMs, overcommit */

START_TEST(test_overcommit_keeps_every_page_and_the_budget)
{
    const char *transport = transports[_i & 1];
    unsigned cpus = _i & 2 ? 2 : 1, vms = _i & 4 ? 4 : 1, ratio = 1u << (_i >> 3);
    unsigned memory = vms > 1 ? 32 : 64, budget = memory * vms / ratio, fill = memory / 8 * 7;
    char line[LINE_BYTES];
    struct program p;
    if (!program_has_kvm("overcommit"))
        return;
    snprintf(line, sizeof(line),
             "run --memory %uM --vms %u --cpus %u --transport %s --budget %uM --zram %uM --swap a.swap,size=192M "
             "--workload 'fill:%uM,pattern=mixed;zipf:%uM,ops=%u,write=30;verify'",
             memory, vms, cpus, transport, budget, budget / 4, fill, fill, 3000 / vms);
    json_t *json = run_well(&p, line, vms, memory);
    ck_assert_str_eq(run_text(json, "transport"), transport);
    ck_assert_uint_eq(run_number(json, "budget_bytes"), budget * RUN_MIB);
    check_verified(json, fill);
    if (ratio > 1)
        ck_assert_uint_ge(sum_of(json, "zram_bytes") + sum_of(json, "swap_bytes") + budget * RUN_MIB,
                          (uint64_t)fill * vms * RUN_MIB);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

/* --- patterns and steps -------------------------------------------------------------------------------------- */

static const char *const patterns[] = {"zero", "same", "text", "random", "mixed"};
static const char *const steps[] = {"fill", "verify", "zipf", "stream", "churn", "free", "idle", "fill", "verify"};

START_TEST(test_overcommit_every_step_on_every_pattern_is_right)
{
    const char *pattern = patterns[_i / 2], *transport = transports[_i % 2];
    char line[LINE_BYTES];
    struct program p;
    if (!program_has_kvm("patterns and steps"))
        return;
    snprintf(line, sizeof(line),
             "run --memory 64M --budget 16M --zram 6M --swap a.swap,size=128M --cpus %d --transport %s --workload "
             "'fill:40M,pattern=%s;verify;zipf:40M,ops=2000,write=50;stream:40M,passes=2,write=50;churn:40M,ops=300;"
             "free:12M;idle:100ms;fill:20M,pattern=%s,start=28M;verify'",
             1 + _i / 2 % 2, transport, pattern, pattern);
    json_t *json = run_well(&p, line, 1, 64);
    const json_t *done = json_object_get(json_array_get(json_object_get(json, "vms"), 0), "steps");
    ck_assert_uint_eq(json_array_size(done), ARRAY_LEN(steps));
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        ck_assert_str_eq(run_text(json_array_get(done, i), "name"), steps[i]);
        ck_assert_uint_eq(run_number(json_array_get(done, i), "pages_bad"), 0);
        /* all that is filled, less where the machine is so busy that it takes more than 10 s */
        uint64_t set = run_number(json_array_get(done, i), "working_set_10s_bytes");
        bool uses = strcmp(steps[i], "churn") && strcmp(steps[i], "free") && strcmp(steps[i], "idle");
        ck_assert_msg(uses ? set > 0 && set <= 48u << 20 : set == 0, "%s: %llu bytes", steps[i],
                      (unsigned long long)set);
    }
    check_verified(json, 40 + 48);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

/* --- stores -------------------------------------------------------------------------------------------------- */

static const struct {
    const char *line;
    uint64_t memory_mib, verified_mib;
    bool zram, swap; /* it has pages at the end */
} stores[] = {
    /* all fits, with and without as much budget as memory */
    {"run --memory 64M --workload 'fill:40M,pattern=random;zipf:40M,ops=2000;verify'", 64, 40, false, false},
    {"run --memory 64M --budget 56M --workload 'fill:40M,pattern=random;zipf:40M,ops=2000;verify'", 64, 40, false,
     false},
    /* zram only */
    {"run --memory 64M --budget 28M --zram 20M --workload 'fill:48M,pattern=text;zipf:48M,ops=2000;verify'", 64, 48,
     true, false},
    {"run --memory 64M --budget 16M --zram 8M --workload 'fill:56M,pattern=same;zipf:56M,ops=2000;verify'", 64, 56,
     true, false},
    /* zram only, and pages that do not compress: they stay whole, and the others make room */
    {"run --memory 64M --budget 32M --zram 20M "
     "--workload 'fill:8M,pattern=random;fill:40M,pattern=text,start=8M;zipf:48M,ops=2000,write=30;verify'",
     64, 48, true, false},
    {"run --memory 64M --budget 32M --zram 20M,algo=zstd --cpus 2 "
     "--workload 'fill:8M,pattern=random;fill:48M,pattern=text,start=8M;zipf:56M,ops=2000,write=30;verify'",
     64, 56, true, false},
    /* swap only */
    {"run --memory 64M --budget 16M --swap a.swap,size=96M --workload 'fill:56M,pattern=random;verify'", 64, 56, false,
     true},
    {"run --memory 64M --budget 16M --swap a.swap,size=96M --cpus 2 --transport copy "
     "--workload 'fill:56M,pattern=text;zipf:56M,ops=2000,write=30;verify'",
     64, 56, false, true},
    /* both */
    {"run --memory 64M --budget 16M --zram 8M,algo=zstd --swap a.swap,size=96M "
     "--workload 'fill:56M,pattern=mixed;zipf:56M,ops=2000,write=30;verify'",
     64, 56, true, true},
    {"run --memory 64M --budget 16M --zram 8M,algo=zstd,level=7 --swap a.swap,size=96M --transport copy "
     "--workload 'fill:56M,pattern=mixed;zipf:56M,ops=2000,write=30;verify'",
     64, 56, true, true},
    {"run --memory 64M --budget 16M --zram 2M --swap a.swap,size=96M "
     "--workload 'fill:56M,pattern=random;zipf:56M,ops=2000,write=30;verify'",
     64, 56, false, true},
};

START_TEST(test_overcommit_into_every_kind_of_store)
{
    struct program p;
    if (!program_has_kvm("stores"))
        return;
    json_t *json = run_well(&p, stores[_i].line, 1, stores[_i].memory_mib);
    check_verified(json, stores[_i].verified_mib);
    ck_assert_msg(!stores[_i].zram || sum_of(json, "zram_bytes") > 0, "nothing in zram: ebb %s", stores[_i].line);
    ck_assert_msg(stores[_i].swap == (sum_of(json, "swap_bytes") > 0), "swap: ebb %s", stores[_i].line);
    if (strstr(stores[_i].line, "algo=zstd"))
        ck_assert_str_eq(run_text(json_object_get(json, "zram"), "algorithm"), "zstd");
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

/* Pages written to the swap area @name in @json. */
static uint64_t written_pages(const json_t *json, const char *name)
{
    const json_t *swaps = json_object_get(json, "swaps");

    for (size_t i = 0; i < json_array_size(swaps); i++) {
        const json_t *area = json_array_get(swaps, i);
        if (strstr(run_text(area, "filename"), name))
            return run_number(area, "written_pages");
    }
    ck_abort_msg("no swap area %s", name);
}

/* Two areas: which get pages. */
static const struct {
    const char *areas;
    bool a, b;
} priorities[] = {
    {"--swap a.swap,size=96M,prio=5 --swap b.swap,size=96M,prio=1", true, false},
    {"--swap a.swap,size=96M,prio=1 --swap b.swap,size=96M,prio=5", false, true},
    {"--swap a.swap,size=8M,prio=5 --swap b.swap,size=96M,prio=1", true, true},
    {"--swap a.swap,size=96M,prio=3 --swap b.swap,size=96M,prio=3", true, true},
    {"--swap a.swap,size=96M --swap b.swap,size=96M", true, false},
};

START_TEST(test_overcommit_swap_areas_are_used_by_priority)
{
    char line[LINE_BYTES];
    struct program p;
    if (!program_has_kvm("two swap areas"))
        return;
    snprintf(line, sizeof(line),
             "run --memory 64M --budget 16M --cpus 2 %s --workload 'fill:56M,pattern=text;zipf:56M,ops=1000;verify'",
             priorities[_i].areas);
    json_t *json = run_well(&p, line, 1, 64);
    check_verified(json, 56);
    ck_assert_msg(priorities[_i].a == (written_pages(json, "a.swap") > 0), "a.swap with %s", priorities[_i].areas);
    ck_assert_msg(priorities[_i].b == (written_pages(json, "b.swap") > 0), "b.swap with %s", priorities[_i].areas);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

/* --- swapoff under load -------------------------------------------------------------------------------------- */

/*
 * Areas come and go, each time taking all pages of the other one, for as long as the guests run. Returns how often. The
 * API ends a little earlier than the process: only an answer about the area itself is a fault.
 */
static unsigned swap_to_and_fro(const struct program *p)
{
    static const char *const lines[] = {"swapon b.swap,size=128M --api a.sock", "swapoff a.swap --api a.sock",
                                        "swapon a.swap,size=128M --api a.sock", "swapoff b.swap --api a.sock"};
    struct program answer;
    unsigned nr = 0;

    for (unsigned i = 0; !run_has_ended(p); i++) {
        run_ask(p, lines[i % ARRAY_LEN(lines)], &answer);
        bool over = strstr(answer.err_text, "the run is over") || strstr(answer.err_text, "ends now") ||
                    strstr(answer.err_text, "a.sock") || strstr(answer.err_text, "hung up");
        ck_assert_msg(!answer.code || over, "%s: exit code %d, %s", lines[i % ARRAY_LEN(lines)], answer.code,
                      answer.err_text);
        if (answer.code)
            break;
        nr += i % 2;
    }
    return nr;
}

START_TEST(test_overcommit_swapoff_under_load_keeps_every_page)
{
    char line[LINE_BYTES];
    struct program p;
    unsigned vms = _i & 2 ? 2 : 1;
    if (!program_has_kvm("swapoff under load"))
        return;
    snprintf(line, sizeof(line),
             "run --memory %uM --vms %u --cpus %u --transport %s --budget 24M --zram 6M --swap a.swap,size=128M "
             "--api a.sock --json out.json --quiet --workload 'fill:%uM,pattern=mixed;zipf,ops=40000,write=40;"
             "verify;stream,passes=2,write=50;verify'",
             96 / vms, vms, 3 - vms, transports[_i & 1], 80 / vms);
    run_start_filled(&p, line, 40 / vms);
    unsigned nr = swap_to_and_fro(&p);
    program_wait(&p);
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    json_t *json = run_load(&p, "out.json");
    run_check_result(json, vms, 96 / vms * RUN_MIB, transports[_i & 1]);
    check_verified(json, 2 * (80 / vms));
    ck_assert_uint_gt(nr, 0);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

START_TEST(test_overcommit_swapoff_that_does_not_fit_harms_no_page_under_load)
{
    struct program p, answer;
    if (!program_has_kvm("swapoff that does not fit, under load"))
        return;
    run_start_filled(
        &p,
        "run --memory 64M --budget 16M --swap a.swap,size=96M --cpus 2 --api a.sock --json out.json --quiet "
        "--workload 'fill:56M,pattern=random;zipf,ops=20000,write=40;verify'",
        40);
    for (unsigned i = 0; i < 5 && !run_has_ended(&p); i++) {
        run_ask(&p, "swapoff a.swap --api a.sock", &answer);
        ck_assert_msg(answer.code == 1 || strstr(answer.err_text, "a.sock"), "exit code %d: %s", answer.code,
                      answer.err_text);
    }
    program_wait(&p);
    ck_assert_msg(p.code == 0, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    json_t *json = run_load(&p, "out.json");
    run_check_result(json, 1, 64 * RUN_MIB, NULL);
    check_verified(json, 56);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

/* --- everything is full -------------------------------------------------------------------------------------- */

static const struct {
    const char *line, *says;
} full[] = {
    {"run --memory 64M --budget 40M --workload 'fill:56M,pattern=random;verify'",
     "budget 40 MiB is full, and there is neither zram nor swap"},
    {"run --memory 64M --budget 16M --zram 8M --workload 'fill:56M,pattern=random;verify'",
     "budget 16 MiB and zram 8 MiB are full, and there is no swap"},
    {"run --memory 64M --budget 16M --zram 2M --cpus 2 --workload 'fill:56M,pattern=text;verify'",
     "budget 16 MiB and zram 2 MiB are full, and there is no swap"},
    {"run --memory 64M --budget 16M --swap a.swap,size=24M --workload 'fill:56M,pattern=text;verify'",
     "budget 16 MiB and swap 24.0 MiB are full"},
    {"run --memory 64M --budget 16M --zram 4M --swap a.swap,size=16M --transport copy --cpus 2 "
     "--workload 'fill:56M,pattern=random;zipf;verify'",
     "budget 16 MiB, zram 4 MiB and swap 16.0 MiB are full"},
};

START_TEST(test_overcommit_beyond_all_stores_fails_cleanly)
{
    char line[LINE_BYTES];
    struct program p;
    if (!program_has_kvm("everything full"))
        return;
    program_init(&p);
    snprintf(line, sizeof(line), "%s --quiet --api none --json out.json", full[_i].line);
    program_start(&p, line);
    uint64_t most = run_watch(&p);
    ck_assert_msg(p.code == 1, "ebb %s\nexit code %d\n%s", line, p.code, p.err_text);
    ck_assert_msg(program_lines(p.err_text) == 1, "not one line: %s", p.err_text);
    ck_assert_msg(strstr(p.err_text, "ebb: vm0: out of memory: "), "%s", p.err_text);
    ck_assert_msg(strstr(p.err_text, full[_i].says), "\"%s\" does not say \"%s\"", p.err_text, full[_i].says);
    json_t *json = run_load(&p, "out.json");
    ck_assert_uint_le(most, run_number(json, "budget_bytes") + RUN_OVERHEAD_BYTES + RUN_OVERHEAD_VM_BYTES);
    ck_assert_ptr_nonnull(strstr(run_text(json, "result"), "out of memory"));
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

/* VMs in @json that came through with @verified_mib each; the others must say that memory ran out. */
static unsigned nr_well(const json_t *json, uint64_t memory_mib, uint64_t verified_mib)
{
    const json_t *vms = json_object_get(json, "vms");
    unsigned nr = 0;

    for (size_t i = 0; i < json_array_size(vms); i++) {
        const json_t *vm = json_array_get(vms, i);
        if (strcmp(run_text(vm, "result"), "ok") != 0) {
            ck_assert_ptr_nonnull(strstr(run_text(vm, "result"), "out of memory"));
            continue;
        }
        run_check_vm(vm, memory_mib * RUN_MIB);
        ck_assert_uint_eq(run_number(vm, "pages_verified"), verified_mib * RUN_MIB / PAGE_BYTES);
        nr++;
    }
    return nr;
}

/* All VMs want the same, and there is room for all but one: when memory ends, the one that has most is stopped. */
START_TEST(test_overcommit_of_several_vms_only_the_greediest_is_stopped)
{
    unsigned vms = _i & 2 ? 4 : 2, fill = _i & 2 ? 16 : 40;
    char line[LINE_BYTES];
    struct program p;
    if (!program_has_kvm("one VM of several is stopped"))
        return;
    program_init(&p);
    snprintf(line, sizeof(line),
             "run --memory 48M --vms %u --cpus %u --transport %s --budget 24M --zram 4M --swap a.swap,size=32M --quiet "
             "--json out.json --workload 'fill:%uM,pattern=random;idle:300ms;verify'",
             vms, 1 + (unsigned)_i / 4, transports[_i & 1], fill);
    program_run(&p, line);
    ck_assert_msg(p.code == 1, "exit code %d\n%s%s", p.code, p.out_text, p.err_text);
    ck_assert_msg(program_lines(p.err_text) == 1, "not one line: %s", p.err_text);
    ck_assert_msg(strstr(p.err_text, "out of memory"), "%s", p.err_text);
    json_t *json = run_load(&p, "out.json");
    ck_assert_uint_eq(nr_well(json, 48, fill), vms - 1);
    json_decref(json);
    program_fini(&p, "out.json");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("overcommit");
    TCase *matrix = tcase_create("matrix"), *stores_case = tcase_create("stores"), *ends = tcase_create("ends");
    tcase_set_timeout(matrix, 280);
    tcase_set_timeout(stores_case, 280);
    tcase_set_timeout(ends, 280);
    tcase_add_loop_test(matrix, test_overcommit_keeps_every_page_and_the_budget, 0, NR_CELLS);
    tcase_add_loop_test(matrix, test_overcommit_every_step_on_every_pattern_is_right, 0, 2 * ARRAY_LEN(patterns));
    tcase_add_loop_test(stores_case, test_overcommit_into_every_kind_of_store, 0, ARRAY_LEN(stores));
    tcase_add_loop_test(stores_case, test_overcommit_swap_areas_are_used_by_priority, 0, ARRAY_LEN(priorities));
    tcase_add_loop_test(stores_case, test_overcommit_swapoff_under_load_keeps_every_page, 0, 4);
    tcase_add_test(stores_case, test_overcommit_swapoff_that_does_not_fit_harms_no_page_under_load);
    tcase_add_loop_test(ends, test_overcommit_beyond_all_stores_fails_cleanly, 0, ARRAY_LEN(full));
    tcase_add_loop_test(ends, test_overcommit_of_several_vms_only_the_greediest_is_stopped, 0, 8);
    suite_add_tcase(suite, matrix);
    suite_add_tcase(suite, stores_case);
    suite_add_tcase(suite, ends);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
