/* SPDX-License-Identifier: Apache-2.0 */
/* The device in its thread, the driver in another, which resets it whenever it likes. */
#include "tests/unit/blk_rig.h"

#include <poll.h>
#include <pthread.h>

#define FILE_BYTES (UINT64_C(1) << 20)
#define NR_SLOTS 32u
#define SLOT_BYTES 8192u

static struct blk_rig rig;
static pthread_t thread;

static void *run(void *ctx)
{
    loop_run(ctx);
    return NULL;
}

static void setup(void)
{
    blk_rig_init(&rig, NULL, FILE_BYTES, UINT64_C(4) << 20);
}

static void teardown(void)
{
    loop_stop(rig.loop);
    pthread_join(thread, NULL);
    blk_rig_fini(&rig);
}

static void wait_used(struct fake_used *used)
{
    struct pollfd irq = {.fd = rig.mmio.irq_fd, .events = POLLIN};
    while (!fake_driver_collect(&rig.driver, 0, used)) {
        ck_assert_int_eq(poll(&irq, 1, 20000), 1);
        fake_driver_interrupts(&rig.driver);
    }
}

struct slot {
    gpa_t header, data, status;
};

static void make_slots(struct slot *slots)
{
    for (unsigned i = 0; i < NR_SLOTS; i++) {
        slots[i].header = fake_memory_alloc(&rig.memory, 16, 16);
        slots[i].data = fake_memory_alloc(&rig.memory, SLOT_BYTES, 512);
        slots[i].status = fake_memory_alloc(&rig.memory, 1, 1);
    }
}

static void send(const struct slot *s, uint32_t type, uint64_t sector)
{
    bool in = type == VIRTIO_BLK_T_IN;
    struct fake_buffer chain[] = {{s->header, 16}, {s->data, SLOT_BYTES}, {s->status, 1}};
    blk_rig_header(&rig, s->header, type, sector);
    if (type == VIRTIO_BLK_T_FLUSH)
        chain[1] = chain[2];
    ck_assert_int_eq(fake_driver_add(&rig.driver, 0, chain, type == VIRTIO_BLK_T_OUT ? 2 : 1, in ? 2 : 1, true,
                                     blk_rig_at(&rig, s->status, 1)),
                     0);
    fake_driver_kick(&rig.driver, 0);
}

static void all_good(unsigned nr)
{
    struct fake_used used;
    for (; nr > 0; nr--) {
        wait_used(&used);
        ck_assert_uint_eq(*(uint8_t *)used.token, VIRTIO_BLK_S_OK);
    }
}

/* _i: packed, direct, plain calls. */
START_TEST(test_blk_threads_every_request_comes_back_and_resets_end_them)
{
    static struct slot slots[NR_SLOTS];
    uint64_t features = (_i & 1 ? PACKED : 0) | BLK_COMMON;
    rig.config.direct = _i & 2;
    rig.config.no_uring = _i & 4;
    blk_rig_start(&rig, features);
    make_slots(slots);
    ck_assert_int_eq(pthread_create(&thread, NULL, run, rig.loop), 0);
    for (unsigned round = 0; round < 20; round++) {
        char want[SLOT_BYTES];
        for (unsigned i = 0; i < NR_SLOTS; i++) {
            rig_fill(blk_rig_at(&rig, slots[i].data, SLOT_BYTES), SLOT_BYTES, round * NR_SLOTS + i);
            send(&slots[i], VIRTIO_BLK_T_OUT, i * (SLOT_BYTES / RIG_SECTOR));
        }
        all_good(NR_SLOTS);
        for (unsigned i = 0; i < NR_SLOTS; i++)
            send(&slots[i], i % 8 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_FLUSH,
                 (NR_SLOTS - 1 - i) * (SLOT_BYTES / RIG_SECTOR));
        if (round % 3 == 2) {
            fake_driver_reset(&rig.driver);
            ck_assert_uint_eq(blk_rig_stat(&rig).nr_busy, 0);
            ck_assert_int_eq(fake_driver_start(&rig.driver, features & fake_driver_offered(&rig.driver), 0), 0);
            continue;
        }
        all_good(NR_SLOTS);
        for (unsigned i = 0; i < NR_SLOTS; i++) {
            rig_fill(want, sizeof(want), round * NR_SLOTS + NR_SLOTS - 1 - i);
            if (i % 8)
                ck_assert_mem_eq(blk_rig_at(&rig, slots[i].data, SLOT_BYTES), want, sizeof(want));
        }
    }
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_errors, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk_threads");
    TCase *tcase = tcase_create("blk_threads");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_blk_threads_every_request_comes_back_and_resets_end_them, 0, 8);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
