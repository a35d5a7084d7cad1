/* SPDX-License-Identifier: Apache-2.0 */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/workload.h"

#define MIB (UINT64_C(1) << 20)
#define MIB_PAGES 256u

static void parse(const char *text, struct workload *out)
{
    struct diag diag = {0};
    int result = workload_parse(text, 256 * MIB, out, &diag);

    ck_assert_msg(result == 0, "%s: %s", text, diag.text);
    ck_assert_str_eq(diag.text, "");
    ck_assert_str_eq(out->text, text);
}

START_TEST(test_workload_every_key_is_read)
{
    struct workload w;

    parse("fill:100M,pattern=text; fill:100M,start=100M,pattern=random ;"
          "zipf:150M,ops=5,write=30,theta=1.25,order=linear,work=9,start=50M;verify;"
          "stream:1M,passes=3,write=7,take=8K,skip=4K,turn=63;"
          "idle:250ms;free:60M;churn,ops=12,start=4K;verify:8K,start=130M",
          &w);
    ck_assert_uint_eq(w.nr_steps, 9);
    ck_assert_uint_eq(w.steps[0].kind, EBB_STEP_FILL);
    ck_assert_uint_eq(w.steps[0].pattern, EBB_PATTERN_TEXT);
    ck_assert_uint_eq(w.steps[0].size_pages, 100 * MIB_PAGES);
    ck_assert_uint_eq(w.steps[1].start_pages, 100 * MIB_PAGES);
    ck_assert_uint_eq(w.steps[1].pattern, EBB_PATTERN_RANDOM);
    ck_assert_uint_eq(w.steps[2].kind, EBB_STEP_ZIPF);
    ck_assert_uint_eq(w.steps[2].ops, 5);
    ck_assert_uint_eq(w.steps[2].write_pct, 30);
    ck_assert_uint_eq(w.steps[2].theta_milli, 1250);
    ck_assert_uint_eq(w.steps[2].linear, 1);
    ck_assert_uint_eq(w.steps[2].work, 9);
    ck_assert_uint_eq(w.steps[2].start_pages, 50 * MIB_PAGES);
    ck_assert_uint_eq(w.steps[2].size_pages, 150 * MIB_PAGES);
    ck_assert_uint_eq(w.steps[3].size_pages, 200 * MIB_PAGES);
    ck_assert_uint_eq(w.steps[4].passes, 3);
    ck_assert_uint_eq(w.steps[4].write_pct, 7);
    ck_assert_uint_eq(w.steps[4].take_pages, 2);
    ck_assert_uint_eq(w.steps[4].skip_pages, 1);
    ck_assert_uint_eq(w.steps[4].turn, 63);
    ck_assert_uint_eq(w.steps[5].ns, 250000000);
    ck_assert_uint_eq(w.steps[6].start_pages, 140 * MIB_PAGES);
    ck_assert_uint_eq(w.steps[6].size_pages, 60 * MIB_PAGES);
    ck_assert_uint_eq(w.steps[7].start_pages, 1);
    ck_assert_uint_eq(w.steps[7].size_pages, 140 * MIB_PAGES - 1);
}
END_TEST

START_TEST(test_workload_without_keys_takes_defaults)
{
    struct workload w;

    parse("fill;zipf;stream;churn;idle:1m;free", &w);
    ck_assert_uint_eq(w.steps[0].pattern, EBB_PATTERN_MIXED);
    ck_assert_uint_eq(w.steps[0].size_pages, ebb_usable_pages(256 * MIB, 0));
    ck_assert_uint_eq(w.steps[1].ops, 100000);
    ck_assert_uint_eq(w.steps[1].write_pct, 20);
    ck_assert_uint_eq(w.steps[1].theta_milli, 990);
    ck_assert_uint_eq(w.steps[1].linear, 0);
    ck_assert_uint_eq(w.steps[2].passes, 1);
    ck_assert_uint_eq(w.steps[2].take_pages, 1);
    ck_assert_uint_eq(w.steps[2].skip_pages, 0);
    ck_assert_uint_eq(w.steps[2].turn, 0);
    ck_assert_uint_eq(w.steps[3].ops, 1000);
    ck_assert_uint_eq(w.steps[4].ns, UINT64_C(60000000000));
    ck_assert_uint_eq(w.steps[5].start_pages, 0);
}
END_TEST

START_TEST(test_workload_hostile_needs_no_pages)
{
    struct workload w;

    parse("hostile,ops=7;fill:1M", &w);
    ck_assert_uint_eq(w.steps[0].kind, EBB_STEP_HOSTILE);
    ck_assert_uint_eq(w.steps[0].ops, 7);
    ck_assert_uint_eq(w.steps[0].size_pages, 0);
}
END_TEST

static const struct {
    const char *text;
    uint32_t milli;
} thetas[] = {{"0", 0}, {"0.5", 500}, {"0.99", 990}, {".123", 123}, {"1", 1000}, {"2.000", 2000}};

START_TEST(test_workload_theta_is_exact)
{
    char text[64];
    struct workload w;

    snprintf(text, sizeof(text), "fill:1M;zipf,theta=%s", thetas[_i].text);
    parse(text, &w);
    ck_assert_uint_eq(w.steps[1].theta_milli, thetas[_i].milli);
}
END_TEST

START_TEST(test_workload_longest_list_is_taken_one_more_refused)
{
    struct workload w;
    struct diag diag = {0};
    char text[WORKLOAD_MAX_STEPS * 8 + 16] = "fill:1M";

    for (unsigned i = 1; i < WORKLOAD_MAX_STEPS; i++)
        strcat(text, ";verify");
    parse(text, &w);
    ck_assert_uint_eq(w.nr_steps, WORKLOAD_MAX_STEPS);
    strcat(text, ";verify");
    ck_assert_int_eq(workload_parse(text, 256 * MIB, &w, &diag), -1);
    ck_assert_ptr_nonnull(strstr(diag.text, "more than 32 steps"));
}
END_TEST

/* What is wrong, and words that the one line must have. */
static const struct {
    const char *text, *words[3];
} wrong[] = {
    {"", {"step 1", "is empty"}},
    {"fill:1M;;verify", {"step 2", "is empty"}},
    {"fill:1M;verify;", {"step 3", "is empty"}},
    {"fil:1M", {"step 1", "\"fil\"", "did you mean fill"}},
    {"quicksort", {"\"quicksort\"", "fill, verify, zipf, stream, idle, free, churn, hostile"}},
    {"fill:1M,patern=text", {"step 1 (fill)", "\"patern\"", "did you mean pattern"}},
    {"fill:1M,ops=3", {"step 1 (fill)", "\"ops\"", "pattern, start"}},
    {"fill:1M,pattern=txt", {"\"txt\"", "did you mean text"}},
    {"fill:1M,pattern=", {"pattern needs a value"}},
    {"fill:1M,pattern", {"pattern needs a value"}},
    {"fill:1M,pattern=text,pattern=text", {"given twice"}},
    {"fill:", {"nothing stands behind the colon"}},
    {"fill:0", {"size of 0"}},
    {"fill:many", {"\"many\"", "not a size"}},
    {"fill:5000", {"multiple of 4K"}},
    {"fill:300M", {"step 1 (fill)", "300M", "only"}},
    {"fill:99999999T", {"step 1 (fill)"}},
    {"fill:10M;fill:1M,start=11M", {"step 2 (fill)", "leaves a hole", "10M"}},
    {"fill:10M;fill:250M,start=10M", {"step 2 (fill)", "ends at 260M"}},
    {"verify", {"step 1 (verify)", "put a fill step before"}},
    {"fill:10M;free;zipf", {"step 3 (zipf)", "put a fill step before"}},
    {"fill:10M;zipf:11M", {"step 2 (zipf)", "wants 11M", "10M are there"}},
    {"fill:10M;zipf:8M,start=4M", {"step 2 (zipf)", "ends at 12M", "beyond the 10M"}},
    {"fill:10M;verify,start=10M", {"step 2 (verify)", "beyond the 10M"}},
    {"fill:10M;free:4M;verify:7M", {"step 3 (verify)", "6M are there"}},
    {"fill:10M;free:11M", {"step 2 (free)", "10M are there"}},
    {"fill:10M;free:1M,start=0", {"step 2 (free)", "takes no keys"}},
    {"fill:1M;zipf,write=101", {"write=101", "from 0 to 100"}},
    {"fill:1M;zipf,write=-1", {"write=-1"}},
    {"fill:1M;zipf,write=5x", {"write=5x"}},
    {"fill:1M;zipf,ops=99999999999999999999999", {"ops=", "from 0 to"}},
    {"fill:1M;stream,turn=64", {"turn=64", "from 0 to 63"}},
    {"fill:1M;zipf,turn=1", {"\"turn\"", "ops, write"}},
    {"fill:1M;zipf,theta=2.001", {"theta=2.001", "from 0 (uniform) to 2"}},
    {"fill:1M;zipf,theta=0.9999", {"theta=0.9999", "three digits"}},
    {"fill:1M;zipf,theta=1.", {"theta=1."}},
    {"fill:1M;zipf,theta=.", {"theta=."}},
    {"fill:1M;zipf,theta=1.2.3", {"theta=1.2.3"}},
    {"fill:1M;zipf,theta=99999999999999", {"theta="}},
    {"fill:1M;zipf,order=random", {"\"random\"", "scattered, linear"}},
    {"fill:1M;zipf,work=1000001", {"work=1000001", "from 0 to 1000000"}},
    {"fill:1M;zipf,take=4K", {"\"take\"", "work"}},
    {"fill:1M;stream,take=0", {"step 2 (stream)", "take=0", "4K or more"}},
    {"fill:1M;stream,skip=0", {"skip=0", "4K or more"}},
    {"fill:1M;stream,skip=5000", {"multiple of 4K"}},
    {"fill:1M;stream,take=300M", {"take=300M", "no more than the guest has"}},
    {"idle", {"step 1 (idle)", "needs a time"}},
    {"idle:5", {"\"5\" is not a time"}},
    {"idle:0s", {"not a time"}},
    {"idle:s", {"not a time"}},
    {"idle:2d", {"not a time"}},
    {"idle:100000m", {"at most a day"}},
    {"idle:1s,ops=3", {"takes no keys"}},
    {"hostile:2M", {"takes no size"}},
    {"hostile,write=3", {"\"write\"", "ops"}},
};

START_TEST(test_workload_mistake_is_named_and_output_kept)
{
    struct diag diag = {0};
    struct workload before, w;

    memset(&before, 0x5a, sizeof(before));
    w = before;
    ck_assert_int_eq(workload_parse(wrong[_i].text, 256 * MIB, &w, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_USAGE);
    ck_assert_mem_eq(&w, &before, sizeof(w));
    for (unsigned i = 0; i < 3 && wrong[_i].words[i]; i++)
        ck_assert_msg(strstr(diag.text, wrong[_i].words[i]), "\"%s\" says: %s (without \"%s\")", wrong[_i].text,
                      diag.text, wrong[_i].words[i]);
}
END_TEST

START_TEST(test_workload_too_long_is_refused)
{
    struct diag diag = {0};
    struct workload w;
    char text[2000];

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    ck_assert_int_eq(workload_parse(text, 256 * MIB, &w, &diag), -1);
    ck_assert_ptr_nonnull(strstr(diag.text, "longer than 1023"));
}
END_TEST

/* Whatever is written: an answer, never a crash, and steps inside the guest's memory. */
START_TEST(test_workload_random_text_stays_in_bounds)
{
    static const char *const bits[] = {"fill",  "zipf",  "verify",  "free", "idle", "churn", ":",
                                       ";",     ",",     "=",       "1M",   "10M",  "2s",    "ops",
                                       "write", "start", "pattern", "text", "100",  "theta", "0.9"};
    uint32_t rng = (uint32_t)_i * 2654435761u + 1;

    for (unsigned round = 0; round < 400; round++) {
        char text[256] = "fill:20M;";
        struct diag diag = {0};
        struct workload w;

        for (unsigned i = 0; i < 12; i++) {
            rng = rng * 1664525u + 1013904223u;
            strcat(text, bits[(rng >> 16) % (sizeof(bits) / sizeof(bits[0]))]);
        }
        if (workload_parse(text, 64 * MIB, &w, &diag) == 0) {
            for (unsigned i = 0; i < w.nr_steps; i++)
                ck_assert_uint_le(w.steps[i].start_pages + w.steps[i].size_pages, ebb_usable_pages(64 * MIB, 0));
        } else {
            ck_assert_str_ne(diag.text, "");
        }
    }
}
END_TEST

START_TEST(test_workload_help_names_every_step_and_pattern)
{
    static const char *const patterns[] = {"zero", "same", "text", "random", "mixed"};

    for (uint32_t kind = 0; kind < EBB_NR_STEP_KINDS; kind++)
        ck_assert_ptr_nonnull(strstr(workload_help(), workload_step_name(kind)));
    for (unsigned i = 0; i < 5; i++)
        ck_assert_ptr_nonnull(strstr(workload_help(), patterns[i]));
}
END_TEST

START_TEST(test_workload_memory_above_the_hole_is_split)
{
    uint64_t low, high;

    workload_split_memory(3072 * MIB, &low, &high);
    ck_assert_uint_eq(low, 3072 * MIB);
    ck_assert_uint_eq(high, 0);
    workload_split_memory(3074 * MIB, &low, &high);
    ck_assert_uint_eq(low, 3072 * MIB);
    ck_assert_uint_eq(high, 2 * MIB);
}
END_TEST

/* What a step that took @ns did, and what it used within 10 s, in pages. */
static uint64_t used(const char *text, uint64_t pages, uint64_t ops, uint64_t ns)
{
    const struct workload_step_result result = {.pages = pages, .ops = ops, .ns = ns};
    struct workload w;
    parse(text, &w);
    return workload_working_set(&w.steps[w.nr_steps - 1], &result, WORKLOAD_WINDOW_NS) / PAGE_BYTES;
}

START_TEST(test_workload_working_set_of_passes_is_what_they_touch)
{
    const uint64_t s = 1000000000;
    ck_assert_uint_eq(used("fill:100M", 25600, 0, s), 25600);
    ck_assert_uint_eq(used("fill:100M", 25600, 0, 40 * s), 6400);
    ck_assert_uint_eq(used("fill:100M;verify:50M", 12800, 0, 5 * s), 12800);
    /* ten passes over 25600 pages in 100 s are one in 10 s; in 200 s half of one */
    ck_assert_uint_eq(used("fill:100M;stream:100M,passes=10", 256000, 0, 100 * s), 25600);
    ck_assert_uint_eq(used("fill:100M;stream:100M,passes=10", 256000, 0, 200 * s), 12800);
    ck_assert_uint_eq(used("fill:100M;stream:100M,passes=10,take=1M,skip=1M", 128000, 0, s), 12800);
    /* 12 KiB of each 16, and of the last 8 all */
    ck_assert_uint_eq(used("fill:100M;stream:24K,take=12K,skip=4K", 5, 0, s), 5);
    ck_assert_uint_eq(used("idle:2s", 0, 0, 2 * s), 0);
    ck_assert_uint_eq(used("fill:100M;free:50M", 12800, 0, s), 0);
    ck_assert_uint_eq(used("fill:100M", 0, 0, 0), 0);
}
END_TEST

static const double skews[] = {0, 0.5, 0.99, 1.2, 2};

/* Beside what a draw of all accesses meets. */
START_TEST(test_workload_working_set_of_zipf_is_what_a_draw_of_it_meets)
{
    enum { PAGES = 12800, OPS = 20000 };
    static double below[PAGES];
    static bool met[PAGES];
    char text[80];
    double all = 0;
    uint64_t nr_met = 0, random = 4711;
    memset(met, 0, sizeof(met));
    for (unsigned i = 0; i < PAGES; i++)
        below[i] = all += pow(i + 1, -skews[_i]);
    for (unsigned i = 0; i < OPS; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        double at = (double)(random >> 11) / (double)(UINT64_C(1) << 53) * all;
        unsigned low = 0, high = PAGES - 1;
        while (low < high)
            if (below[(low + high) / 2] < at)
                low = (low + high) / 2 + 1;
            else
                high = (low + high) / 2;
        nr_met += !met[low];
        met[low] = true;
    }
    snprintf(text, sizeof(text), "fill:100M;zipf:50M,theta=%g,ops=%u", skews[_i], 4 * OPS);
    /* four times as many in 40 s are as many in 10 s */
    uint64_t found = used(text, 0, 4 * OPS, UINT64_C(40000000000));
    ck_assert_uint_ge(found * 100, nr_met * 97);
    ck_assert_uint_le(found * 100, nr_met * 103);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("workload");
    TCase *tcase = tcase_create("parse");

    tcase_add_test(tcase, test_workload_every_key_is_read);
    tcase_add_test(tcase, test_workload_without_keys_takes_defaults);
    tcase_add_test(tcase, test_workload_hostile_needs_no_pages);
    tcase_add_loop_test(tcase, test_workload_theta_is_exact, 0, sizeof(thetas) / sizeof(thetas[0]));
    tcase_add_test(tcase, test_workload_longest_list_is_taken_one_more_refused);
    tcase_add_loop_test(tcase, test_workload_mistake_is_named_and_output_kept, 0, sizeof(wrong) / sizeof(wrong[0]));
    tcase_add_test(tcase, test_workload_too_long_is_refused);
    tcase_add_loop_test(tcase, test_workload_random_text_stays_in_bounds, 0, 4);
    tcase_add_test(tcase, test_workload_help_names_every_step_and_pattern);
    tcase_add_test(tcase, test_workload_memory_above_the_hole_is_split);
    tcase_add_test(tcase, test_workload_working_set_of_passes_is_what_they_touch);
    tcase_add_loop_test(tcase, test_workload_working_set_of_zipf_is_what_a_draw_of_it_meets, 0,
                        sizeof(skews) / sizeof(skews[0]));
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
