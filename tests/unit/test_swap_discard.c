/* SPDX-License-Identifier: Apache-2.0 */
/* Swap areas of which what is free is being discarded: it is room, and is waited for when there is no other. */
#include "tests/unit/swap_rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* One cluster, all of it in use: who frees it, and who wants slots while it is discarded. */
struct discarding {
    struct swap_set *set;
    int area;
    bool running, wanted; /* atomic */
    unsigned got;
    struct swap_ref ref;
};

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* The device is at it until somebody wants the slots, and for a while longer. */
static void discard_slowly(void *ctx)
{
    struct discarding *d = ctx;
    __atomic_store_n(&d->running, true, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&d->wanted, __ATOMIC_ACQUIRE))
        nap();
    for (unsigned i = 0; i < 20; i++)
        nap();
}

static void *free_cluster(void *arg)
{
    struct discarding *d = arg;
    for (uint64_t slot = 1; slot < 128; slot++)
        swap_free(d->set, (struct swap_ref){(uint8_t)d->area, slot});
    return NULL;
}

/* What another thread gets while the area's only cluster is being discarded. */
static void alloc_while_discarding(struct discarding *d)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, free_cluster, d), 0);
    while (!__atomic_load_n(&d->running, __ATOMIC_ACQUIRE))
        nap();
    __atomic_store_n(&d->wanted, true, __ATOMIC_RELEASE);
    d->got = swap_alloc(d->set, 64, &d->ref);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

static struct fake_swap *add_full(struct discarding *d, const char *name, int priority)
{
    struct fake_swap *disk = add_area(d->set, name, 128, priority, &d->area);
    struct swap_ref ref;
    for (unsigned left = 127, nr; left > 0; left -= nr) {
        nr = swap_alloc(d->set, left, &ref);
        ck_assert_uint_gt(nr, 0);
        ck_assert_int_eq(ref.area, d->area);
    }
    return disk;
}

START_TEST(test_swap_area_all_of_which_is_being_discarded_is_not_full)
{
    struct discarding d = {.set = set_create()};
    struct fake_swap *disk = add_full(&d, "a", -1);
    disk->at_discard = discard_slowly;
    disk->at_discard_ctx = &d;
    alloc_while_discarding(&d);
    ck_assert_uint_eq(d.got, 64);
    ck_assert_uint_eq(disk->nr_discarded, 127);
    assert_check(d.set);
    swap_set_destroy(d.set);
}
END_TEST

/* It would be asked only when no other has room, and the other has. */
START_TEST(test_swap_area_that_refuses_is_not_asked_while_another_is_being_discarded)
{
    static _Alignas(4096) char page[PAGE_BYTES];
    void *pages[1] = {page};
    int error[1];
    struct discarding d = {.set = set_create()};
    struct swap_ref ref;
    int other;
    struct fake_swap *refusing = add_area(d.set, "refusing", 100, 1, &other);
    ck_assert_uint_eq(swap_alloc(d.set, 1, &ref), 1);
    refusing->write_error[ref.slot] = -ENOSPC;
    ck_assert_int_eq(swap_write(d.set, ref, pages, 1, error), -ENOSPC);
    struct fake_swap *disk = add_full(&d, "a", 0);
    disk->at_discard = discard_slowly;
    disk->at_discard_ctx = &d;
    alloc_while_discarding(&d);
    ck_assert_uint_eq(d.got, 64);
    ck_assert_int_eq(d.ref.area, d.area);
    swap_set_destroy(d.set);
}
END_TEST

/* Called by the discard itself: whoever waited for it would wait for ever. */
static void alloc_inside(void *ctx)
{
    struct discarding *d = ctx;
    d->got = swap_alloc(d->set, 8, &d->ref);
}

START_TEST(test_swap_alloc_does_not_wait_for_a_discard_while_another_area_has_room)
{
    struct discarding d = {.set = set_create()};
    int other;
    struct fake_swap *disk = add_full(&d, "a", 1);
    add_area(d.set, "b", 100, 0, &other);
    disk->at_discard = alloc_inside;
    disk->at_discard_ctx = &d;
    free_cluster(&d);
    ck_assert_uint_eq(d.got, 8);
    ck_assert_int_eq(d.ref.area, other);
    assert_check(d.set);
    swap_set_destroy(d.set);
}
END_TEST

START_TEST(test_swap_alloc_does_not_wait_for_a_discard_of_a_disabled_area)
{
    struct discarding d = {.set = set_create(), .got = 1};
    struct fake_swap *disk = add_full(&d, "a", 1);
    swap_area_enable(d.set, d.area, false);
    disk->at_discard = alloc_inside;
    disk->at_discard_ctx = &d;
    free_cluster(&d);
    ck_assert_uint_eq(disk->nr_discarded, 127);
    ck_assert_uint_eq(d.got, 0);
    swap_set_destroy(d.set);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swap_discard");
    TCase *cases = tcase_create("cases");
    tcase_add_test(cases, test_swap_area_all_of_which_is_being_discarded_is_not_full);
    tcase_add_test(cases, test_swap_area_that_refuses_is_not_asked_while_another_is_being_discarded);
    tcase_add_test(cases, test_swap_alloc_does_not_wait_for_a_discard_while_another_area_has_room);
    tcase_add_test(cases, test_swap_alloc_does_not_wait_for_a_discard_of_a_disabled_area);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
