/* SPDX-License-Identifier: Apache-2.0 */
/* How far a run is, in words. */
#include "vmm/phase.h"

#include <check.h>
#include <stdlib.h>

static const struct {
    enum phase_step step;
    unsigned at, of;
    const char *says;
} steps[] = {
    {PHASE_HOST, 0, 0, "preparing memory and swap areas"},
    {PHASE_MAKE, 1, 1, "making VM 1 of 1"},
    {PHASE_MAKE, UINT32_MAX, UINT32_MAX, "making VM 4294967295 of 4294967295"},
    {PHASE_START, 3, 40, "starting VM 3 of 40"},
    {PHASE_RUN, 0, 0, ""},
    {PHASE_END, UINT32_MAX, UINT32_MAX, "giving back the memory of VM 4294967295 of 4294967295"},
};

START_TEST(test_phase_says_what_it_is_at)
{
    struct phase phase;
    char text[PHASE_TEXT];
    phase_init(&phase);
    ck_assert_int_eq(phase_read(&phase, text), PHASE_HOST);
    phase_set(&phase, steps[_i].step, steps[_i].at, steps[_i].of);
    ck_assert_int_eq(phase_read(&phase, text), steps[_i].step);
    ck_assert_str_eq(text, steps[_i].says);
    phase_fini(&phase);
}
END_TEST

START_TEST(test_phase_lasts_from_its_first_vm_to_its_last)
{
    struct phase phase;
    phase_init(&phase);
    ck_assert_uint_eq(phase_set(&phase, PHASE_MAKE, 1, 3), 0);
    phase.begin_ns -= 1000;
    ck_assert_uint_ge(phase_set(&phase, PHASE_MAKE, 2, 3), 1000);
    ck_assert_uint_eq(phase_set(&phase, PHASE_START, 1, 3), 0);
    phase_fini(&phase);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("phase");
    TCase *tcase = tcase_create("phase");
    tcase_add_loop_test(tcase, test_phase_says_what_it_is_at, 0, (int)(sizeof(steps) / sizeof(steps[0])));
    tcase_add_test(tcase, test_phase_lasts_from_its_first_vm_to_its_last);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
