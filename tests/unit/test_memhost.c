/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that this machine does not have: how pages travel there, or what is said. The rest is tests/vm/vm_memhost.c. */
#include "mm/base/types.h"
#include "vmm/memhost.h"
#include "vmm/uffd.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define MOVE UFFD_FEATURE_MOVE
#define WP UFFD_FEATURE_PAGEFAULT_FLAG_WP

static const struct {
    enum transport want;
    uint64_t features;
    bool move;
} chosen[] = {
    {TRANSPORT_AUTO, MOVE | WP, true}, {TRANSPORT_MOVE, MOVE | WP, true}, {TRANSPORT_COPY, MOVE | WP, false},
    {TRANSPORT_AUTO, WP, false},       {TRANSPORT_COPY, WP, false},       {TRANSPORT_AUTO, MOVE, true},
};

START_TEST(test_memhost_transport_is_the_best_that_kernel_and_user_allow)
{
    struct diag diag = {0};
    bool move = !chosen[_i].move;
    ck_assert_int_eq(memhost_choose_transport(chosen[_i].want, chosen[_i].features, &move, &diag), 0);
    ck_assert_int_eq(move, chosen[_i].move);
    ck_assert_str_eq(diag.text, "");
}
END_TEST

static const struct {
    enum transport want;
    uint64_t features;
    const char *lacks, *mend;
} refused[] = {
    {TRANSPORT_MOVE, WP, "UFFDIO_MOVE", "--transport copy"},
    {TRANSPORT_AUTO, 0, "write-protect", "--backend kernel"},
    {TRANSPORT_COPY, 0, "write-protect", "--backend kernel"},
    {TRANSPORT_COPY, MOVE, "write-protect", "--backend kernel"},
};

START_TEST(test_memhost_kernel_without_the_transport_says_what_to_take)
{
    struct diag diag = {0};
    bool move;
    ck_assert_int_eq(memhost_choose_transport(refused[_i].want, refused[_i].features, &move, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_HOST);
    ck_assert_msg(strstr(diag.text, refused[_i].lacks) && strstr(diag.text, refused[_i].mend), "%s", diag.text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memhost");
    TCase *tests = tcase_create("transport");
    tcase_add_loop_test(tests, test_memhost_transport_is_the_best_that_kernel_and_user_allow, 0, ARRAY_LEN(chosen));
    tcase_add_loop_test(tests, test_memhost_kernel_without_the_transport_says_what_to_take, 0, ARRAY_LEN(refused));
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
