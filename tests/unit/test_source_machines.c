/* SPDX-License-Identifier: Apache-2.0 */
/* Views of machines while their devices are busy. The machines are made by hand: a balloon, and what leads to it. */
#include "tests/unit/balloon_rig.h"
#include "vmm/machine_kinds.h"
#include "vmm/machine_parts.h"
#include "vmm/source.h"

#include <check.h>
#include <stdlib.h>

struct rig {
    struct balloon_rig balloon;
    struct machine_devices devices;
    struct machine machine[2]; /* the second has no devices */
    struct source source;
};

static struct rig *rig_new(void)
{
    static const struct balloon_config config = {.stats = true};
    struct rig *rig = calloc(1, sizeof(*rig));

    ck_assert_ptr_nonnull(rig);
    balloon_rig_init(&rig->balloon, &config, false);
    rig->devices.balloon = rig->balloon.balloon;
    rig->machine[0].devices = &rig->devices;
    ck_assert_int_eq(source_init(&rig->source, NULL, NULL, 2), 0);
    source_vm_add(&rig->source, "vm0", NULL, &rig->machine[0]);
    source_vm_add(&rig->source, "vm1", NULL, &rig->machine[1]);
    return rig;
}

static void rig_free(struct rig *rig)
{
    source_fini(&rig->source);
    balloon_rig_fini(&rig->balloon);
    free(rig);
}

static void *ask_balloon(void *arg)
{
    struct source *source = arg;
    struct diag diag = {0};

    return source_view(source, "balloon", NULL, NULL, &diag);
}

static unsigned users_of_first(struct source *source)
{
    pthread_mutex_lock(&source->lock);
    unsigned nr = source->vms[0].nr_users;
    pthread_mutex_unlock(&source->lock);
    return nr;
}

/*
 * The balloon of vm0 waits for a page, which waits for the memory of vm1: a view that waits for the balloon must not keep
 * vm1 from being taken down.
 */
START_TEST(test_source_busy_device_of_one_vm_does_not_keep_another_from_leaving)
{
    struct rig *rig = rig_new();
    struct virtio_device *device = balloon_device(rig->balloon.balloon);
    pthread_t asker;
    void *view;

    pthread_mutex_lock(&device->lock);
    ck_assert_int_eq(pthread_create(&asker, NULL, ask_balloon, &rig->source), 0);
    while (users_of_first(&rig->source) == 0)
        sched_yield();
    source_vm_gone(&rig->source, "vm1");
    pthread_mutex_unlock(&device->lock);
    pthread_join(asker, &view);
    ck_assert_uint_eq(json_array_size(json_object_get(view, "vms")), 1);
    ck_assert_uint_eq(users_of_first(&rig->source), 0);
    json_decref(view);
    rig_free(rig);
}
END_TEST

START_TEST(test_source_machines_that_are_there_are_listed_in_order)
{
    struct rig *rig = rig_new();
    struct diag diag = {0};
    json_t *view = source_view(&rig->source, "balloon", NULL, NULL, &diag), *vms = json_object_get(view, "vms");

    ck_assert_uint_eq(json_array_size(vms), 2);
    ck_assert_ptr_nonnull(json_object_get(json_array_get(vms, 0), "balloon"));
    ck_assert_str_eq(json_string_value(json_object_get(json_array_get(vms, 1), "vm")), "vm1");
    ck_assert_ptr_null(json_object_get(json_array_get(vms, 1), "balloon"));
    json_decref(view);
    source_vm_gone(&rig->source, "vm0");
    view = source_view(&rig->source, "balloon", NULL, NULL, &diag);
    vms = json_object_get(view, "vms");
    ck_assert_uint_eq(json_array_size(vms), 1);
    ck_assert_str_eq(json_string_value(json_object_get(json_array_get(vms, 0), "vm")), "vm1");
    json_decref(view);
    rig_free(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("source_machines");
    TCase *tcase = tcase_create("source_machines");

    tcase_add_test(tcase, test_source_busy_device_of_one_vm_does_not_keep_another_from_leaving);
    tcase_add_test(tcase, test_source_machines_that_are_there_are_listed_in_order);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
