/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data in memory that mm manages: pages that were swapped out come in and stay until the I/O has ended, and nothing is
 * pinned afterwards. Rings, headers and status bytes stand in memory that mm does not know, which the fake host's
 * guest pages, present or not, are not: nothing stops a test from touching those that are absent.
 */
#include "devices/blk/request.h"
#include "tests/unit/blk_rig.h"
#include "tests/unit/mm_rig.h"

#include <linux/falloc.h>

#define VM_PAGES 8192u /* 32 MiB */
#define FILE_BYTES (UINT64_C(1) << 20)

/* The compressed store holds what the tests write; there is no swap area. */
static const struct mm_config with_zram = {.budget_bytes = 16 * MIB, .zram = {.limit_bytes = 8 * MIB}};
static const struct mm_config without_store = {.budget_bytes = 8 * MIB};

static struct blk_rig rig;
static struct mm_rig *mm;
static char *guest; /* address of guest frame 0 */

static void start(const struct mm_config *config)
{
    mm = mm_rig_create(config, VM_PAGES * PAGE_BYTES, 2);
    guest = fake_host_guest(mm->fh, mm_vm_id(mm->vm));
    fake_memory_init(&rig.memory, UINT64_C(1) << 32, 4 * MIB);
    rig.memory.mem.region[1] = (struct guest_mem_region){.start = {0}, .bytes = VM_PAGES * PAGE_BYTES, .hva = guest};
    rig.memory.mem.nr = 2;
    rig.env.vm = mm->vm;
    rig.env.thread = mm->thread[1];
    blk_rig_start(&rig, BLK_COMMON);
}

static void setup(void)
{
    blk_rig_init(&rig, NULL, FILE_BYTES, 0);
}

static void nothing_is_pinned(void)
{
    for (gfn_t gfn = 0; gfn < VM_PAGES; gfn += BLOCK_PAGES)
        ck_assert_uint_eq(vm_block(mm->vm, gfn)->nr_pins, 0);
    ck_assert_uint_eq(blk_rig_stat(&rig).pinned_bytes, 0);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_busy, 0);
}

static void teardown(void)
{
    nothing_is_pinned();
    blk_rig_fini(&rig);
    mm_rig_destroy(mm);
}

/* Pages [0, nr) are in the store, and junk stands where they were. */
static void push_out(gfn_t nr)
{
    for (unsigned i = 0; i < 50; i++)
        mm_reclaim(mm->thread[0], mm->vm, VM_PAGES, true);
    for (gfn_t gfn = 0; gfn < nr; gfn++) {
        ck_assert_msg(!mm_rig_is_present(mm, gfn), "page %u stays", gfn);
        memset(guest + gfn * PAGE_BYTES, 0x5a, PAGE_BYTES);
    }
}

static struct fake_buffer pages(gfn_t gfn, unsigned nr)
{
    return (struct fake_buffer){gpa_of(gfn), (uint32_t)(nr * PAGE_BYTES)};
}

START_TEST(test_blk_pin_swapped_out_data_is_written_and_read)
{
    char want[PAGE_BYTES];
    struct fake_buffer out[3], in[2];
    rig.config.direct = _i;
    start(&with_zram);
    out[0] = pages(3, 4);
    out[1] = pages(7, 1);
    out[2] = pages(1000, 8);
    in[0] = pages(20, 8);
    in[1] = pages(511, 5);
    mm_rig_fill(mm, 0, 1100, TEXT);
    push_out(1100);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 0, out, 3), VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < 13; i++) {
        gfn_t gfn = i < 5 ? 3 + i : 1000 + i - 5;
        rig_make_page((uint64_t *)(void *)want, gfn, TEXT);
        ck_assert_msg(blk_rig_file_has(&rig, i * PAGE_BYTES, want, PAGE_BYTES), "page %u", gfn);
        mm_rig_verify(mm, 0, gfn);
    }
    nothing_is_pinned();
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 0, in, 2), VIRTIO_BLK_S_OK);
    nothing_is_pinned();
    push_out(0);
    for (unsigned i = 0; i < 13; i++) {
        uint64_t got[PAGE_BYTES / 8];
        gfn_t gfn = i < 8 ? 20 + i : 511 + i - 8;
        rig_make_page((uint64_t *)(void *)want, i < 5 ? 3 + i : 1000 + i - 5, TEXT);
        ck_assert_int_eq(mm_rig_touch(mm, 0, gfn), 0);
        ck_assert_int_eq(fake_host_guest_read(mm->fh, mm_vm_id(mm->vm), gfn, 0, got, (uint32_t)PAGE_BYTES), 0);
        ck_assert_msg(memcmp(got, want, PAGE_BYTES) == 0, "page %u", gfn);
    }
    ck_assert_uint_eq(rig.nr_fatal, 0);
}
END_TEST

/* A request that has been taken, and is not sent yet. */
static struct blk_request *take_one(uint32_t type, const struct fake_buffer *data, unsigned nr)
{
    struct fake_buffer chain[FAKE_MAX_SEGMENTS] = {{rig.header, 16}};
    bool in = type == VIRTIO_BLK_T_IN;
    struct blk *b = rig.blk;
    struct blk_request *r = b->free;
    for (unsigned i = 0; i < nr; i++)
        chain[i + 1] = data[i];
    chain[nr + 1] = (struct fake_buffer){rig.status, 1};
    blk_rig_header(&rig, rig.header, type, 0);
    ck_assert_int_eq(fake_driver_add(&rig.driver, 0, chain, in ? 1 : 1 + nr, in ? nr + 1 : 1, true, NULL), 0);
    ck_assert_int_eq(virtio_pop(&b->device, 0, &r->chain), 1);
    b->free = r->next;
    r->queue = 0;
    blk_request_begin(b, r);
    return r;
}

/* The I/O of @r, the first that is unsent, has ended with @result. */
static void end_io(struct blk_request *r, int64_t result)
{
    ck_assert_ptr_eq(rig.blk->io.unsent.head, &r->op);
    rig.blk->io.unsent.head = r->op.next;
    r->op.result = result;
    blk_request_step(rig.blk, r);
}

START_TEST(test_blk_pin_reclaim_leaves_data_alone_while_it_is_under_way)
{
    struct fake_buffer data[2];
    start(&with_zram);
    data[0] = pages(5, 3);
    data[1] = pages(600, 1);
    mm_rig_fill(mm, 0, 1024, TEXT);
    push_out(1024);
    struct blk_request *r = take_one(VIRTIO_BLK_T_OUT, data, 2);
    ck_assert_uint_eq(vm_block(mm->vm, 5)->nr_pins, 1);
    ck_assert_uint_eq(vm_block(mm->vm, 600)->nr_pins, 1);
    ck_assert_uint_eq(blk_rig_stat(&rig).pinned_bytes, 2 * BLOCK_BYTES);
    push_out(0);
    ck_assert(mm_rig_is_present(mm, 5) && mm_rig_is_present(mm, 6) && mm_rig_is_present(mm, 7));
    ck_assert(mm_rig_is_present(mm, 600));
    ck_assert_uint_eq(r->op.nr_iov, 2);
    ck_assert_ptr_eq(r->op.iov[0].iov_base, guest + 5 * PAGE_BYTES);
    end_io(r, 4 * (int64_t)PAGE_BYTES);
    nothing_is_pinned();
    push_out(1024);
    for (gfn_t gfn = 0; gfn < 1024; gfn++)
        mm_rig_verify(mm, 0, gfn);
}
END_TEST

/* Continuations keep the pins; an error gives them back. _i: what is the end of it. */
START_TEST(test_blk_pin_short_and_interrupted_io_goes_on)
{
    struct fake_buffer data[3];
    start(&with_zram);
    data[0] = pages(10, 1);
    data[1] = pages(11, 1); /* one element with the first */
    data[2] = pages(20, 2);
    struct blk_request *r = take_one(VIRTIO_BLK_T_IN, data, 3);
    ck_assert_uint_eq(r->op.nr_iov, 2);
    end_io(r, -EINTR);
    end_io(r, -EAGAIN);
    ck_assert_uint_eq(r->op.offset_bytes, 0);
    end_io(r, 5000);
    /* 5000 bytes are 9 blocks and a piece, which is done again. */
    ck_assert_uint_eq(r->op.offset_bytes, 4608);
    ck_assert_ptr_eq(r->op.iov[0].iov_base, guest + 10 * PAGE_BYTES + 4608);
    ck_assert_uint_eq(r->op.iov[0].iov_len, 8192 - 4608);
    end_io(r, 8192 - 4608);
    ck_assert_uint_eq(r->op.nr_iov, 1);
    ck_assert_ptr_eq(r->op.iov[0].iov_base, guest + 20 * PAGE_BYTES);
    ck_assert_uint_eq(vm_block(mm->vm, 10)->nr_pins, 2);
    uint8_t *status = blk_rig_at(&rig, rig.status, 1);
    *status = RIG_NO_STATUS;
    switch (_i) {
    case 0:
        end_io(r, 8192);
        ck_assert_uint_eq(*status, VIRTIO_BLK_S_OK);
        ck_assert_uint_eq(blk_rig_stat(&rig).read_bytes, 16384);
        break;
    case 1:
        end_io(r, -EIO);
        ck_assert_uint_eq(*status, VIRTIO_BLK_S_IOERR);
        break;
    case 2:
        end_io(r, 0);
        ck_assert_uint_eq(*status, VIRTIO_BLK_S_IOERR);
        break;
    case 3:
        end_io(r, 100); /* not a block: no way on */
        ck_assert_uint_eq(*status, VIRTIO_BLK_S_IOERR);
        break;
    default:
        for (unsigned i = 0; *status == RIG_NO_STATUS; i++) {
            ck_assert_uint_lt(i, 1001);
            end_io(r, -EAGAIN);
        }
        ck_assert_uint_eq(*status, VIRTIO_BLK_S_IOERR);
        ck_assert_int_eq(blk_rig_stat(&rig).first_error, EAGAIN);
    }
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_errors, _i > 0);
}
END_TEST

/* What the host's page cache has lost stays lost; past the cache the next flush counts. _i: direct. */
START_TEST(test_blk_flush_that_failed_fails_for_good)
{
    struct fake_buffer data;
    rig.config.direct = _i;
    start(&with_zram);
    data = pages(3, 1);
    end_io(take_one(VIRTIO_BLK_T_FLUSH, NULL, 0), -EIO);
    ck_assert_uint_eq(*(uint8_t *)blk_rig_at(&rig, rig.status, 1), VIRTIO_BLK_S_IOERR);
    fake_driver_reset(&rig.driver);
    ck_assert_int_eq(fake_driver_start(&rig.driver, BLK_COMMON, 0), 0);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), _i ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_errors, _i ? 1 : 2);
}
END_TEST

/* Ranges of two sectors each, in memory that needs no pin. */
static struct fake_buffer ranges_of(unsigned nr, uint32_t flags)
{
    struct fake_buffer data = {fake_memory_alloc(&rig.memory, 16 * nr, 16), 16 * nr};
    for (unsigned i = 0; i < nr; i++) {
        struct virtio_blk_discard_write_zeroes range = {.sector = 8 * i, .num_sectors = 2, .flags = flags};
        memcpy((char *)blk_rig_at(&rig, data.gpa, data.bytes) + 16 * i, &range, 16);
    }
    return data;
}

START_TEST(test_blk_what_the_file_system_cannot_is_done_another_way)
{
    start(&with_zram);
    uint8_t *status = blk_rig_at(&rig, rig.status, 1);
    struct fake_buffer data = ranges_of(2, 0);
    struct blk_request *r = take_one(VIRTIO_BLK_T_DISCARD, &data, 1);
    end_io(r, -EOPNOTSUPP);
    ck_assert_uint_eq(r->op.offset_bytes, 8 * RIG_SECTOR);
    *status = RIG_NO_STATUS;
    end_io(r, -EOPNOTSUPP);
    ck_assert_uint_eq(*status, VIRTIO_BLK_S_OK);

    data = ranges_of(1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
    r = take_one(VIRTIO_BLK_T_WRITE_ZEROES, &data, 1);
    ck_assert_int_eq(r->op.mode, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
    end_io(r, -EOPNOTSUPP);
    ck_assert_int_eq(r->op.mode, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
    end_io(r, -EOPNOTSUPP);
    ck_assert_int_eq(r->op.kind, BLK_OP_WRITE);
    end_io(r, 512);
    ck_assert_uint_eq(r->op.iov[0].iov_len, 512);
    *status = RIG_NO_STATUS;
    end_io(r, 512);
    ck_assert_uint_eq(*status, VIRTIO_BLK_S_OK);
    /* It is remembered. */
    r = take_one(VIRTIO_BLK_T_WRITE_ZEROES, &data, 1);
    ck_assert_int_eq(r->op.kind, BLK_OP_WRITE);
    end_io(r, -EIO);
    ck_assert_uint_eq(*status, VIRTIO_BLK_S_IOERR);
    data = ranges_of(2, 0);
    r = take_one(VIRTIO_BLK_T_DISCARD, &data, 1);
    *status = RIG_NO_STATUS;
    end_io(r, -EIO);
    ck_assert_uint_eq(*status, VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_errors, 2);
}
END_TEST

/* One segment over two blocks, and pins for one. */
START_TEST(test_blk_pin_limit_cuts_a_segment_between_blocks)
{
    rig.config.pin_limit_bytes = 1; /* one block is always allowed */
    start(&with_zram);
    struct fake_buffer data = pages(BLOCK_PAGES - 2, 5);
    struct blk_request *r = take_one(VIRTIO_BLK_T_IN, &data, 1);
    ck_assert_uint_eq(r->op.iov[0].iov_len, 2 * PAGE_BYTES);
    struct blk_request *second = take_one(VIRTIO_BLK_T_IN, &data, 1);
    ck_assert_ptr_eq(rig.blk->parked, second);
    end_io(r, 2 * PAGE_BYTES);
    /* Who waits goes first. */
    blk_requests_unpark(rig.blk);
    ck_assert_ptr_eq(rig.blk->parked, r);
    ck_assert_ptr_eq(rig.blk->io.unsent.head, &second->op);
    end_io(second, 2 * PAGE_BYTES);
    blk_requests_unpark(rig.blk);
    ck_assert_uint_eq(r->op.iov[0].iov_len, 3 * PAGE_BYTES);
    end_io(r, 3 * PAGE_BYTES);
    blk_requests_unpark(rig.blk);
    end_io(second, 3 * PAGE_BYTES);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_reads, 2);
}
END_TEST

/* Many requests over much more memory than the budget has. _i: a limit on pins, and how tight. */
START_TEST(test_blk_pin_scattered_io_over_four_times_the_budget)
{
    enum { REQUESTS = 100, SEGMENTS = 16 };
    static const uint64_t limits[] = {0, BLOCK_BYTES, 4 * BLOCK_BYTES};
    static const struct mm_config tight = {.budget_bytes = 8 * MIB, .zram = {.limit_bytes = 4 * MIB}};
    struct fake_used used;
    rig.config.pin_limit_bytes = limits[_i];
    start(&tight);
    char *headers = blk_rig_at(&rig, fake_memory_alloc(&rig.memory, REQUESTS * 16, 16), REQUESTS * 16);
    gpa_t header = {rig.memory.next - REQUESTS * 16};
    uint8_t *status = blk_rig_at(&rig, fake_memory_alloc(&rig.memory, REQUESTS, 1), REQUESTS);
    gpa_t status_gpa = {rig.memory.next - REQUESTS};
    mm_rig_fill(mm, 0, 3000, TEXT);
    memset(status, RIG_NO_STATUS, REQUESTS);
    for (unsigned i = 0; i < REQUESTS; i++) {
        struct fake_buffer chain[SEGMENTS + 2] = {{{header.v + 16 * i}, 16}};
        (void)headers;
        blk_rig_header(&rig, chain[0].gpa, VIRTIO_BLK_T_IN, i * 16);
        for (unsigned k = 0; k < SEGMENTS; k++) /* each in another block */
            chain[k + 1] = (struct fake_buffer){{gpa_of(k * BLOCK_PAGES + i).v + 512}, 512};
        chain[SEGMENTS + 1] = (struct fake_buffer){{status_gpa.v + i}, 1};
        ck_assert_int_eq(fake_driver_add(&rig.driver, 0, chain, 1, SEGMENTS + 1, true, &status[i]), 0);
    }
    fake_driver_kick(&rig.driver, 0);
    for (unsigned nr = 0; nr < REQUESTS; nr++)
        blk_rig_wait(&rig, 0, &used);
    nothing_is_pinned();
    ck_assert_uint_eq(rig.nr_fatal, 0);
    for (unsigned i = 0; i < REQUESTS; i++) {
        ck_assert_uint_eq(status[i], VIRTIO_BLK_S_OK);
        for (unsigned k = 0; k < SEGMENTS; k++) {
            char want[512], got[512];
            gfn_t gfn = k * BLOCK_PAGES + i;
            rig_fill(want, sizeof(want), (i * 16 + k) * RIG_SECTOR);
            ck_assert_int_eq(mm_rig_touch(mm, 0, gfn), 0);
            ck_assert_int_eq(fake_host_guest_read(mm->fh, mm_vm_id(mm->vm), gfn, 512, got, 512), 0);
            ck_assert_msg(memcmp(got, want, 512) == 0, "request %u, segment %u", i, k);
        }
    }
    if (_i == 1)
        ck_assert_uint_eq(blk_rig_stat(&rig).nr_windows, REQUESTS * SEGMENTS);
}
END_TEST

/* One request larger than what can be resident at a time. */
START_TEST(test_blk_pin_request_larger_than_the_budget)
{
    static const struct mm_config tight = {.budget_bytes = 8 * MIB, .zram = {.limit_bytes = 4 * MIB}};
    struct fake_buffer data = pages(100, 4096);
    ck_assert_int_eq(truncate(rig.path, (off_t)(32 * MIB)), 0);
    start(&tight);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_ge(blk_rig_stat(&rig).nr_windows, 4);
    ck_assert_uint_eq(rig.nr_fatal, 0);
}
END_TEST

/* No page can be had: the VM is to stop, and the request is answered. */
START_TEST(test_blk_pin_without_memory_is_fatal)
{
    struct fake_buffer data = pages(VM_PAGES - 2, 2);
    gfn_t gfn = 0;
    start(&without_store);
    while (!mm_rig_write(mm, 0, gfn, RANDOM))
        gfn++;
    ck_assert_uint_lt(gfn, VM_PAGES - 2);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 0, &data, 1), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.nr_fatal, 1);
    ck_assert_int_eq(rig.fatal_err, -ENOMEM);
    ck_assert_uint_eq(rig.fatal_gpa.v, gpa_of(VM_PAGES - 2).v);
    ck_assert_int_eq(blk_rig_stat(&rig).first_error, ENOMEM);
}
END_TEST

static void give_up_the_rest(void)
{
    uint64_t dropped;
    ck_assert_int_eq(mm_drop(mm->thread[0], mm->vm, gpa_of(0), VM_PAGES / 2 * PAGE_BYTES, MM_DROP_FREE, 0, &dropped),
                     0);
}

/* Another VM was stopped for it: the request goes on, in windows as large as ever. */
START_TEST(test_blk_pin_without_memory_goes_on_when_other_memory_came_free)
{
    struct fake_buffer data = pages(VM_PAGES - 64, 64);
    start(&without_store);
    rig.make_room = give_up_the_rest;
    for (gfn_t gfn = 0; !mm_rig_write(mm, 0, gfn, RANDOM); gfn++)
        ck_assert_uint_lt(gfn, VM_PAGES / 2);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_IN, 0, &data, 1), VIRTIO_BLK_S_OK);
    ck_assert_uint_eq(rig.nr_fatal, 0);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_windows, 1);
}
END_TEST

/* Two segments, the second of which is memory no more; the first is not left pinned. */
START_TEST(test_blk_pin_unplugged_memory_is_fatal)
{
    struct fake_buffer data[2];
    start(&with_zram);
    data[0] = pages(1, 1);
    data[1] = pages(2 * BLOCK_PAGES, 1);
    ck_assert_int_eq(mm_plug(mm->thread[0], mm->vm, gpa_of(2 * BLOCK_PAGES), BLOCK_BYTES, false), 0);
    ck_assert_uint_eq(blk_rig_request(&rig, VIRTIO_BLK_T_OUT, 0, data, 2), VIRTIO_BLK_S_IOERR);
    ck_assert_uint_eq(rig.nr_fatal, 1);
    ck_assert_int_eq(rig.fatal_err, -EFAULT);
    ck_assert_uint_eq(rig.fatal_gpa.v, gpa_of(2 * BLOCK_PAGES).v);
}
END_TEST

/* While it waits for pins the guest unplugs its memory: an error, and no more. */
START_TEST(test_blk_pin_memory_unplugged_while_a_request_waits_is_an_io_error)
{
    const uint64_t all = UINT64_MAX, none = 0;
    rig.config.pin_limit_bytes = 1;
    start(&with_zram);
    rig.memory.mem.plugged = &all;
    struct fake_buffer data = pages(0, 1);
    struct blk_request *r = take_one(VIRTIO_BLK_T_IN, &data, 1);
    struct blk_request *second = take_one(VIRTIO_BLK_T_IN, &data, 1);
    ck_assert_ptr_eq(rig.blk->parked, second);
    rig.memory.mem.plugged = &none;
    end_io(r, PAGE_BYTES);
    blk_requests_unpark(rig.blk);
    ck_assert_ptr_null(rig.blk->parked);
    ck_assert_uint_eq(blk_rig_stat(&rig).nr_bad, 1);
    ck_assert_uint_eq(rig.nr_fatal, 0);
    rig.memory.mem.plugged = NULL;
}
END_TEST

/* Under way, waiting for pins, and taken again afterwards. */
START_TEST(test_blk_pin_reset_gives_pins_back)
{
    rig.config.direct = true;
    rig.config.pin_limit_bytes = 2 * BLOCK_BYTES;
    start(&with_zram);
    for (unsigned round = 0; round < 10; round++) {
        blk_rig_header(&rig, rig.header, VIRTIO_BLK_T_OUT, 0);
        for (unsigned i = 0; i < 50; i++) {
            struct fake_buffer chain[] = {{rig.header, 16}, pages((i % 16) * BLOCK_PAGES + i, 2), {rig.status, 1}};
            ck_assert_int_eq(fake_driver_add(&rig.driver, 0, chain, 2, 1, true, NULL), 0);
        }
        fake_driver_kick(&rig.driver, 0);
        blk_rig_turn(&rig);
        ck_assert_uint_le(blk_rig_stat(&rig).pinned_bytes, 2 * BLOCK_BYTES);
        fake_driver_reset(&rig.driver);
        nothing_is_pinned();
        ck_assert_int_eq(fake_driver_start(&rig.driver, BLK_COMMON, 0), 0);
    }
    ck_assert_uint_gt(blk_rig_stat(&rig).nr_waits, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blk_pin");
    TCase *tcase = tcase_create("blk_pin");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_blk_pin_swapped_out_data_is_written_and_read, 0, 2);
    tcase_add_test(tcase, test_blk_pin_reclaim_leaves_data_alone_while_it_is_under_way);
    tcase_add_loop_test(tcase, test_blk_pin_short_and_interrupted_io_goes_on, 0, 5);
    tcase_add_loop_test(tcase, test_blk_flush_that_failed_fails_for_good, 0, 2);
    tcase_add_test(tcase, test_blk_what_the_file_system_cannot_is_done_another_way);
    tcase_add_test(tcase, test_blk_pin_limit_cuts_a_segment_between_blocks);
    tcase_add_loop_test(tcase, test_blk_pin_scattered_io_over_four_times_the_budget, 0, 3);
    tcase_add_test(tcase, test_blk_pin_request_larger_than_the_budget);
    tcase_add_test(tcase, test_blk_pin_without_memory_is_fatal);
    tcase_add_test(tcase, test_blk_pin_without_memory_goes_on_when_other_memory_came_free);
    tcase_add_test(tcase, test_blk_pin_unplugged_memory_is_fatal);
    tcase_add_test(tcase, test_blk_pin_memory_unplugged_while_a_request_waits_is_an_io_error);
    tcase_add_test(tcase, test_blk_pin_reset_gives_pins_back);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
