/* SPDX-License-Identifier: Apache-2.0 */
#include "mm/swap/zpool.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fake/run_source.h"

#define NR_FRAMES 96u

static struct run_source source;
static struct zpool pool;

static void setup(void)
{
    run_source_init(&source, NR_FRAMES);
    struct zram_pages pages = run_source_pages(&source);
    zpool_init(&pool, &pages, NR_FRAMES);
}

static void teardown(void)
{
    zpool_fini(&pool);
    ck_assert_uint_eq(source.nr_taken, 0);
    ck_assert_uint_eq(source.nr_bad_puts, 0);
    run_source_fini(&source);
}

static void assert_sound(void)
{
    const char *why;
    ck_assert_msg(zpool_check(&pool, &why), "%s", why);
    ck_assert_uint_eq(pool.used_pages, source.nr_taken);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int put_object(gfn_t gfn, uint32_t len, uint64_t *place)
{
    struct zobject header = {.gfn = gfn, .vm = 1, .len = (uint16_t)len, .checksum = ~gfn};
    int rc = zpool_alloc(&pool, &header, place);
    if (!rc)
        memset(zpool_object(&pool, *place)->data, (int)(gfn & 0xff), len);
    return rc;
}

static uint64_t put_one(gfn_t gfn, uint32_t len)
{
    uint64_t place;
    ck_assert_int_eq(put_object(gfn, len, &place), 0);
    return place;
}

static void assert_object(uint64_t place, gfn_t gfn, uint32_t len)
{
    const struct zobject *object = zpool_object(&pool, place);
    ck_assert_uint_eq(object->gfn, gfn);
    ck_assert_uint_eq(object->vm, 1);
    ck_assert_uint_eq(object->len, len);
    ck_assert_uint_eq(object->checksum, ~gfn);
    uint32_t nr_same = 0; /* one assertion for all bytes: each costs a system call */
    while (nr_same < len && object->data[nr_same] == (gfn & 0xff))
        nr_same++;
    ck_assert_uint_eq(nr_same, len);
}

static const struct zclass *class_for(uint32_t len)
{
    return &pool.classes[pool.class_of[(len + sizeof(struct zobject) + ZPOOL_UNIT - 1) / ZPOOL_UNIT]];
}

START_TEST(test_zpool_class_table_serves_every_length)
{
    for (uint32_t len = 1; len <= ZPOOL_MAX_DATA_BYTES; len++) {
        const struct zclass *class = class_for(len);
        uint32_t bytes = len + (uint32_t)sizeof(struct zobject);
        ck_assert_uint_ge(class->object_bytes, bytes);
        if (class != pool.classes)
            ck_assert_uint_lt(class[-1].object_bytes, bytes);
    }
    for (unsigned c = 0; c < pool.nr_classes; c++) {
        const struct zclass *class = &pool.classes[c];
        ck_assert_uint_le(class->order, ZPOOL_MAX_ORDER);
        ck_assert_uint_le(class->nr_per_zspage, ZPOOL_MAX_OBJECTS);
        ck_assert_uint_le(class->object_bytes * class->nr_per_zspage, PAGE_BYTES << class->order);
        ck_assert_uint_gt(class->object_bytes * (class->nr_per_zspage + 1u), PAGE_BYTES << class->order);
        if (class->fallback == ZPOOL_MAX_CLASSES)
            continue;
        ck_assert_uint_gt(class->fallback, c);
        ck_assert_uint_lt(pool.classes[class->fallback].order, class->order);
    }
    ck_assert_uint_eq(pool.nr_classes, 44);
    ck_assert_uint_eq(pool.classes[pool.nr_classes - 1].object_bytes, ZPOOL_MAX_OBJECT_BYTES);
}
END_TEST

START_TEST(test_zpool_first_and_longest_object_fit)
{
    uint64_t small = put_one(1, 1), large = put_one(2, ZPOOL_MAX_DATA_BYTES);

    assert_object(small, 1, 1);
    assert_object(large, 2, ZPOOL_MAX_DATA_BYTES);
    ck_assert_uint_ge(zpool_room(&pool, small), 1);
    ck_assert_uint_eq(zpool_room(&pool, large), ZPOOL_MAX_DATA_BYTES);
    assert_sound();
    ck_assert_uint_eq(zpool_free(&pool, small), 1);
    ck_assert_uint_eq(zpool_free(&pool, large), 4);
    assert_sound();
    ck_assert_uint_eq(source.nr_taken, 0);
}
END_TEST

START_TEST(test_zpool_full_zspage_opens_another)
{
    const struct zclass *class = class_for(1000);
    unsigned nr = class->nr_per_zspage;
    uint64_t places[ZPOOL_MAX_OBJECTS + 1];

    for (unsigned i = 0; i < nr; i++)
        places[i] = put_one(i, 1000);
    ck_assert_uint_eq(class->nr_zspages, 1);
    ck_assert_uint_eq(class->zspages[ZPOOL_FULL].nr, 1);
    places[nr] = put_one(nr, 1000);
    ck_assert_uint_eq(class->nr_zspages, 2);
    assert_sound();
    for (unsigned i = 0; i <= nr; i++) {
        assert_object(places[i], i, 1000);
        zpool_free(&pool, places[i]);
        assert_sound();
    }
}
END_TEST

START_TEST(test_zpool_freed_object_is_used_first_and_fullest_zspage_filled_first)
{
    const struct zclass *class = class_for(500);
    unsigned nr = class->nr_per_zspage;
    uint64_t places[3 * ZPOOL_MAX_OBJECTS];

    for (unsigned i = 0; i < 2 * nr; i++)
        places[i] = put_one(i, 500);
    /* the second zspage is nearly empty, the first nearly full */
    for (unsigned i = nr + 1; i < 2 * nr; i++)
        zpool_free(&pool, places[i]);
    zpool_free(&pool, places[2]);
    assert_sound();
    ck_assert_uint_eq(put_one(77, 500), places[2]);
    ck_assert_uint_eq(class->zspages[ZPOOL_FULL].nr, 1);
    assert_sound();
}
END_TEST

START_TEST(test_zpool_limit_is_enospc_and_nothing_changes)
{
    uint64_t place, last = 0, nr = 0;

    pool.limit_pages = 6;
    while (!put_object((gfn_t)nr, 900, &place)) {
        last = place;
        nr++;
    }
    ck_assert_int_eq(put_object(1, 900, &place), -ENOSPC);
    assert_sound();
    ck_assert_uint_le(source.nr_taken, 6);
    ck_assert_uint_eq(pool.max_pages, source.nr_taken);
    uint64_t nr_used, data_bytes;
    zpool_count(&pool, &nr_used, &data_bytes);
    ck_assert_uint_eq(nr_used, nr);
    ck_assert_uint_eq(data_bytes, nr * 900);
    zpool_free(&pool, last);
    ck_assert_int_eq(put_object(1, 900, &place), 0);
    assert_sound();
}
END_TEST

START_TEST(test_zpool_failed_get_is_enomem_and_nothing_changes)
{
    uint64_t place = 99;

    source.fail_at = 1;
    ck_assert_int_eq(put_object(1, 100, &place), -ENOMEM);
    ck_assert_uint_eq(place, 99);
    ck_assert_uint_eq(source.nr_taken, 0);
    assert_sound();
    ck_assert_int_eq(put_object(1, 100, &place), 0);
    assert_sound();
}
END_TEST

START_TEST(test_zpool_no_runs_falls_back_to_single_pages)
{
    uint64_t place;

    source.max_order = 0;
    place = put_one(1, 1700);
    ck_assert_uint_eq(class_for(1700)->order, 2);
    ck_assert_uint_eq(zpool_room(&pool, place), 2048 - sizeof(struct zobject));
    assert_object(place, 1, 1700);
    ck_assert_uint_eq(source.nr_taken, 1);
    assert_sound();
    /* more than half a page gains nothing on a page of its own */
    ck_assert_int_eq(put_object(2, 3000, &place), -ENOMEM);
    ck_assert_int_eq(put_object(2, 2200, &place), -ENOMEM);
    source.max_order = 1;
    put_one(2, 2200);
    assert_sound();
}
END_TEST

START_TEST(test_zpool_move_goes_to_a_fuller_zspage)
{
    const struct zclass *class = class_for(1200);
    unsigned nr = class->nr_per_zspage;
    uint64_t places[2 * ZPOOL_MAX_OBJECTS];
    uint32_t freed;

    for (unsigned i = 0; i < nr + 1; i++)
        places[i] = put_one(i, 1200);
    ck_assert_uint_eq(zpool_move(&pool, places[nr], &freed), places[nr]);
    ck_assert_uint_eq(freed, 0);
    zpool_free(&pool, places[0]);
    uint64_t moved = zpool_move(&pool, places[nr], &freed);
    ck_assert_uint_eq(moved, places[0]);
    ck_assert_uint_eq(freed, 1u << class->order);
    assert_object(moved, nr, 1200);
    assert_sound();
    /* an object of the only zspage has nowhere to go */
    zpool_free(&pool, places[1]);
    ck_assert_uint_eq(zpool_move(&pool, moved, &freed), moved);
    ck_assert_uint_eq(freed, 0);
    assert_sound();
}
END_TEST

START_TEST(test_zpool_move_of_damaged_length_stays_in_its_object)
{
    const struct zclass *class = class_for(1200);
    uint64_t places[2 * ZPOOL_MAX_OBJECTS];
    uint32_t freed;

    for (unsigned i = 0; i < class->nr_per_zspage + 1u; i++)
        places[i] = put_one(i, 1200);
    zpool_free(&pool, places[0]);
    zpool_object(&pool, places[class->nr_per_zspage])->len = ZOBJECT_LEN_MASK;
    ck_assert_uint_eq(zpool_move(&pool, places[class->nr_per_zspage], &freed), places[0]);
    for (unsigned i = 1; i < class->nr_per_zspage; i++)
        assert_object(places[i], i, 1200);
    const char *why;
    ck_assert(!zpool_check(&pool, &why));
}
END_TEST

START_TEST(test_zpool_sparsest_lists_live_objects_of_a_class_with_gain)
{
    const struct zclass *class = class_for(700);
    unsigned c = (unsigned)(class - pool.classes), nr = class->nr_per_zspage;
    uint64_t places[3 * ZPOOL_MAX_OBJECTS];
    struct zpool_item items[ZPOOL_MAX_OBJECTS];

    ck_assert_uint_eq(zpool_sparsest(&pool, c, items), 0);
    for (unsigned i = 0; i < 2 * nr; i++)
        places[i] = put_one(i, 700);
    ck_assert_uint_eq(zpool_sparsest(&pool, c, items), 0);
    for (unsigned i = nr; i < 2 * nr - 2; i++)
        zpool_free(&pool, places[i]);
    ck_assert_uint_eq(zpool_sparsest(&pool, c, items), 0);
    zpool_free(&pool, places[0]);
    zpool_free(&pool, places[1]);
    ck_assert_uint_eq(zpool_sparsest(&pool, c, items), 2);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(items[i].place, places[items[i].gfn]);
        ck_assert_uint_ge(items[i].gfn, 2 * nr - 2);
        ck_assert_uint_eq(items[i].vm, 1);
    }
}
END_TEST

START_TEST(test_zpool_class_stat_adds_up)
{
    struct zram_class_stat rows[ZPOOL_MAX_CLASSES];

    for (gfn_t gfn = 0; gfn < 40; gfn++)
        put_one(gfn, 60 + 37 * gfn);
    ck_assert_uint_eq(zpool_class_stat(&pool, rows, 3), 3);
    unsigned nr = zpool_class_stat(&pool, rows, ZPOOL_MAX_CLASSES);
    uint32_t nr_used = 0, nr_pages = 0;
    for (unsigned i = 0; i < nr; i++) {
        ck_assert_uint_le(rows[i].nr_used, rows[i].nr_objects);
        nr_used += rows[i].nr_used;
        nr_pages += rows[i].nr_pages;
    }
    ck_assert_uint_eq(nr, pool.nr_classes);
    ck_assert_uint_eq(nr_used, 40);
    ck_assert_uint_eq(nr_pages, source.nr_taken);
}
END_TEST

START_TEST(test_zpool_check_finds_damage)
{
    uint64_t place = put_one(1, 500), second = put_one(2, 500);
    struct zobject *object = zpool_object(&pool, place);
    fn_t head = (fn_t)(place / (PAGE_BYTES / ZPOOL_UNIT));
    const char *why;

    object->vm = 0;
    ck_assert(!zpool_check(&pool, &why));
    object->vm = 1;
    object->len = 499;
    ck_assert(!zpool_check(&pool, &why));
    object->len = 500;
    source.frames[head].use = FRAME_USED;
    ck_assert(!zpool_check(&pool, &why));
    source.frames[head].use = FRAME_ZPOOL;
    source.frames[head].data16 ^= 4;
    ck_assert(!zpool_check(&pool, &why));
    source.frames[head].data16 ^= 4;
    source.frames[head].data ^= 3;
    ck_assert(!zpool_check(&pool, &why));
    source.frames[head].data ^= 3;
    pool.used_pages++;
    ck_assert(!zpool_check(&pool, &why));
    pool.used_pages--;
    zpool_free(&pool, second);
    object = zpool_object(&pool, second);
    object->gfn = 1; /* the chain runs in a circle */
    ck_assert(!zpool_check(&pool, &why));
    object->gfn = 0xff;
    assert_sound();
}
END_TEST

struct model {
    uint64_t place[400];
    uint32_t len[400];
    bool used[400];
    uint64_t seed;
};

static void model_step(struct model *model)
{
    unsigned i = (unsigned)(next_random(&model->seed) % ARRAY_LEN(model->place));
    uint64_t dice = next_random(&model->seed) % 100;

    if (!model->used[i]) {
        uint32_t len = 1 + (uint32_t)(next_random(&model->seed) % ZPOOL_MAX_DATA_BYTES);
        model->len[i] = dice < 50 ? 1 + len % 700 : len;
        source.fail_at = dice % 10 == 0;
        source.max_order = dice % 7 == 0 ? 0 : ZPOOL_MAX_ORDER;
        int rc = put_object(i, model->len[i], &model->place[i]);
        ck_assert(rc == 0 || rc == -ENOSPC || rc == -ENOMEM);
        model->used[i] = !rc;
        source.fail_at = 0;
        return;
    }
    assert_object(model->place[i], i, model->len[i]);
    if (dice < 60) {
        zpool_free(&pool, model->place[i]);
        model->used[i] = false;
    } else {
        uint32_t freed;
        model->place[i] = zpool_move(&pool, model->place[i], &freed);
        assert_object(model->place[i], i, model->len[i]);
    }
}

START_TEST(test_zpool_random_operations_match_the_model)
{
    struct model *model = calloc(1, sizeof(*model));
    ck_assert_ptr_nonnull(model);
    model->seed = 1000003u * (unsigned)(_i + 1);
    pool.limit_pages = NR_FRAMES - 16 * (unsigned)_i;

    for (unsigned step = 0; step < 4000; step++) {
        model_step(model);
        assert_sound();
    }
    uint64_t nr_used, data_bytes, nr = 0;
    zpool_count(&pool, &nr_used, &data_bytes);
    for (unsigned i = 0; i < ARRAY_LEN(model->used); i++) {
        if (!model->used[i])
            continue;
        assert_object(model->place[i], i, model->len[i]);
        nr++;
        data_bytes -= model->len[i];
    }
    ck_assert_uint_eq(nr, nr_used);
    ck_assert_uint_eq(data_bytes, 0);
    free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zpool");
    TCase *tcase = tcase_create("zpool");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, test_zpool_class_table_serves_every_length);
    tcase_add_test(tcase, test_zpool_first_and_longest_object_fit);
    tcase_add_test(tcase, test_zpool_full_zspage_opens_another);
    tcase_add_test(tcase, test_zpool_freed_object_is_used_first_and_fullest_zspage_filled_first);
    tcase_add_test(tcase, test_zpool_limit_is_enospc_and_nothing_changes);
    tcase_add_test(tcase, test_zpool_failed_get_is_enomem_and_nothing_changes);
    tcase_add_test(tcase, test_zpool_no_runs_falls_back_to_single_pages);
    tcase_add_test(tcase, test_zpool_move_goes_to_a_fuller_zspage);
    tcase_add_test(tcase, test_zpool_move_of_damaged_length_stays_in_its_object);
    tcase_add_test(tcase, test_zpool_sparsest_lists_live_objects_of_a_class_with_gain);
    tcase_add_test(tcase, test_zpool_class_stat_adds_up);
    tcase_add_test(tcase, test_zpool_check_finds_damage);
    tcase_add_loop_test(tcase, test_zpool_random_operations_match_the_model, 0, 4);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int nr_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return nr_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
