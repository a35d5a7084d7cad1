/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-mem: every request and every answer, what mm then says, what a guest gets wrong. */
#include "devices/mem/mem.h"
#include "tests/fake/fail_alloc.h"
#include "tests/fake/fake_driver.h"
#include "tests/unit/mm_rig.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_mmio.h>

#define BOOT_BYTES (8 * MIB)
#define REGION_BYTES (32 * MIB)
#define START BOOT_BYTES
#define NR_BLOCKS (REGION_BYTES / BLOCK_BYTES)
#define F(bit) (UINT64_C(1) << VIRTIO_MEM_F_##bit)
#define NO_ANSWER 0xffff

/* Boot memory, and a region after it that begins unplugged. */
struct mem_rig {
    struct fake_host *fh;
    struct mm_host *host;
    struct mm_thread *thread;
    struct mm_vm *vm;
    struct fake_memory memory;
    struct device_env env;
    struct mem *mem;
    struct virtio_mmio mmio;
    struct fake_driver driver;
    gpa_t req, resp;
};

static struct mem_config config_of(uint64_t requested_bytes)
{
    return (struct mem_config){.name = "mem0",
                               .start = {START},
                               .region_bytes = REGION_BYTES,
                               .requested_bytes = requested_bytes,
                               .node = MEM_NO_NODE};
}

static void rig_init(struct mem_rig *rig, const struct mem_config *config)
{
    const struct mm_config mm_config = {.budget_bytes = 64 * MIB, .zram = {.limit_bytes = 4 * MIB}};
    const struct mm_region regions[] = {{.start = {0}, .bytes = BOOT_BYTES},
                                        {.start = {START}, .bytes = REGION_BYTES, .unplugged = true}};
    *rig = (struct mem_rig){.fh = fake_host_create(mm_arena_slots(&mm_config))};
    ck_assert_int_eq(mm_host_create(&mm_config, fake_host_ops(rig->fh), rig->fh, fake_host_arena(rig->fh), &rig->host),
                     0);
    ck_assert_int_eq(mm_thread_create(rig->host, &rig->thread), 0);
    ck_assert_int_eq(mm_vm_create(rig->host, regions, 2, &rig->vm), 0);
    fake_host_add_vm(rig->fh, mm_vm_id(rig->vm), (uint32_t)((BOOT_BYTES + REGION_BYTES) / PAGE_BYTES));
    fake_memory_init(&rig->memory, 0, BOOT_BYTES);
    ck_assert_int_eq(loop_create(&rig->env.loop), 0);
    rig->env.mem = &rig->memory.mem;
    rig->env.vm = rig->vm;
    rig->env.thread = rig->thread;
    ck_assert_int_eq(mem_create(config, &rig->env, &rig->mem), 0);
    ck_assert_int_eq(virtio_mmio_init(&rig->mmio, mem_device(rig->mem)), 0);
    fake_driver_init(&rig->driver, &rig->mmio, &rig->memory);
    rig->req = fake_memory_alloc(&rig->memory, 64, 64);
    rig->resp = fake_memory_alloc(&rig->memory, 64, 64);
}

static void rig_start(struct mem_rig *rig, uint64_t requested_bytes)
{
    const struct mem_config config = config_of(requested_bytes);
    rig_init(rig, &config);
    ck_assert_int_eq(fake_driver_start(&rig->driver, F(UNPLUGGED_INACCESSIBLE), 0), 0);
}

static void rig_check(struct mem_rig *rig)
{
    const char *why = NULL;
    ck_assert_msg(mm_check(rig->host, &why), "%s", why);
    ck_assert_msg(!fake_host_breach(rig->fh), "%s", fake_host_breach(rig->fh));
}

static void rig_fini(struct mem_rig *rig)
{
    rig_check(rig);
    virtio_mmio_fini(&rig->mmio);
    mem_destroy(rig->mem);
    loop_destroy(rig->env.loop);
    fake_memory_fini(&rig->memory);
    mm_vm_destroy(rig->thread, rig->vm);
    mm_thread_destroy(rig->thread);
    mm_host_destroy(rig->host);
    fake_host_destroy(rig->fh);
}

/* The answer's type; *state when that is asked for. */
static unsigned ask_state(struct mem_rig *rig, uint16_t type, uint64_t addr, uint16_t nr, unsigned *state)
{
    const struct virtio_mem_req req = {.type = htole16(type),
                                       .padding = {1, 2, 3}, /* means nothing */
                                       .u.plug = {.addr = htole64(addr), .nb_blocks = htole16(nr)}};
    struct virtio_mem_resp resp;
    const struct fake_buffer buffers[] = {{rig->req, sizeof(req)}, {rig->resp, sizeof(resp)}};
    memcpy(fake_memory_at(&rig->memory, rig->req, sizeof(req)), &req, sizeof(req));
    memset(fake_memory_at(&rig->memory, rig->resp, sizeof(resp)), 0xff, sizeof(resp));
    ck_assert_int_eq(fake_driver_request(&rig->driver, 0, buffers, 1, 1), sizeof(resp));
    memcpy(&resp, fake_memory_at(&rig->memory, rig->resp, sizeof(resp)), sizeof(resp));
    *state = le16toh(resp.u.state.state);
    return le16toh(resp.type);
}

static unsigned ask(struct mem_rig *rig, uint16_t type, uint64_t block, uint16_t nr)
{
    unsigned state;
    return ask_state(rig, type, START + block * BLOCK_BYTES, nr, &state);
}

static struct virtio_mem_config read_config(struct mem_rig *rig)
{
    struct virtio_mem_config config;
    fake_driver_config_read(&rig->driver, 0, &config, sizeof(config));
    return config;
}

static uint64_t plugged_blocks(struct mem_rig *rig)
{
    struct mm_vm_stat stat;
    struct mem_info info;
    mm_vm_stat(rig->vm, &stat);
    mem_info(rig->mem, &info);
    ck_assert_uint_eq(info.plugged_bytes, le64toh(read_config(rig).plugged_size));
    ck_assert_uint_eq(stat.unplugged_bytes, REGION_BYTES - info.plugged_bytes);
    ck_assert_uint_eq(stat.memory_bytes, BOOT_BYTES + info.plugged_bytes);
    return info.plugged_bytes / BLOCK_BYTES;
}

static int touch(struct mem_rig *rig, uint64_t block)
{
    return mm_fault(rig->thread, rig->vm, (gpa_t){START + block * BLOCK_BYTES}, MM_FAULT_WRITE);
}

START_TEST(test_virtio_mem_config_tells_the_region)
{
    struct mem_rig rig;
    struct mem_config config = config_of(4 * MIB);
    config.node = 2;
    rig_init(&rig, &config);
    ck_assert_uint_eq(fake_driver_offered(&rig.driver) & (F(ACPI_PXM) | F(UNPLUGGED_INACCESSIBLE)),
                      F(ACPI_PXM) | F(UNPLUGGED_INACCESSIBLE));
    struct virtio_mem_config got = read_config(&rig);
    ck_assert_uint_eq(le64toh(got.block_size), BLOCK_BYTES);
    ck_assert_uint_eq(le16toh(got.node_id), 2);
    ck_assert_uint_eq(le64toh(got.addr), START);
    ck_assert_uint_eq(le64toh(got.region_size), REGION_BYTES);
    ck_assert_uint_eq(le64toh(got.usable_region_size), REGION_BYTES);
    ck_assert_uint_eq(le64toh(got.plugged_size), 0);
    ck_assert_uint_eq(le64toh(got.requested_size), 4 * MIB);
    /* read-only */
    ck_assert_int_eq(fake_driver_start(&rig.driver, F(UNPLUGGED_INACCESSIBLE), 0), 0);
    fake_driver_config_write(&rig.driver, offsetof(struct virtio_mem_config, requested_size), &got.region_size, 8);
    ck_assert_uint_eq(le64toh(read_config(&rig).requested_size), 4 * MIB);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_without_a_node_offers_none)
{
    struct mem_rig rig;
    rig_start(&rig, 0);
    ck_assert_uint_eq(fake_driver_offered(&rig.driver) & F(ACPI_PXM), 0);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_plug_makes_memory_and_unplug_takes_it)
{
    struct mem_rig rig;
    rig_start(&rig, 16 * MIB);
    ck_assert_int_eq(touch(&rig, 3), -EFAULT);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 3, 2), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(plugged_blocks(&rig), 2);
    ck_assert_int_eq(touch(&rig, 2), -EFAULT);
    ck_assert_int_eq(touch(&rig, 3), 0);
    ck_assert_int_eq(touch(&rig, 4), 0);
    ck_assert_int_eq(touch(&rig, 5), -EFAULT);
    ck_assert(mem_is_plugged(rig.mem, (gpa_t){START + 3 * BLOCK_BYTES}));
    ck_assert(mem_is_plugged(rig.mem, (gpa_t){START + 5 * BLOCK_BYTES - 1}));
    ck_assert(!mem_is_plugged(rig.mem, (gpa_t){START + 5 * BLOCK_BYTES}));
    ck_assert(!mem_is_plugged(rig.mem, (gpa_t){START - 1}));
    ck_assert(!mem_is_plugged(rig.mem, (gpa_t){START + REGION_BYTES}));
    rig_check(&rig);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 3, 1), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(plugged_blocks(&rig), 1);
    ck_assert_int_eq(touch(&rig, 3), -EFAULT);
    ck_assert_int_eq(touch(&rig, 4), 0);
    struct mm_vm_stat stat;
    mm_vm_stat(rig.vm, &stat);
    ck_assert_uint_le(stat.resident_bytes, BLOCK_BYTES);
    struct mem_info info;
    mem_info(rig.mem, &info);
    ck_assert_uint_eq(info.nr_plugged_blocks, 2);
    ck_assert_uint_eq(info.nr_unplugged_blocks, 1);
    ck_assert_uint_eq(info.nr_acks, 2);
    ck_assert(info.live);
    rig_fini(&rig);
}
END_TEST

/* The 64 bits of plugged_size are read in two halves: a driver that read one of them before must find out. */
START_TEST(test_virtio_mem_plugged_size_that_changes_is_seen_by_who_reads_it_meanwhile)
{
    struct mem_rig rig;
    rig_start(&rig, 16 * MIB);
    (void)fake_driver_interrupts(&rig.driver);
    uint32_t before = fake_driver_get(&rig.driver, VIRTIO_MMIO_CONFIG_GENERATION);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 3, 2), VIRTIO_MEM_RESP_ACK);
    uint32_t plugged = fake_driver_get(&rig.driver, VIRTIO_MMIO_CONFIG_GENERATION);
    ck_assert_uint_ne(plugged, before);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 3, 2), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(fake_driver_get(&rig.driver, VIRTIO_MMIO_CONFIG_GENERATION), plugged);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 3, 1), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_ne(fake_driver_get(&rig.driver, VIRTIO_MMIO_CONFIG_GENERATION), plugged);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver) & VIRTIO_INT_CONFIG, 0);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_whole_region_can_be_plugged_and_no_block_more)
{
    struct mem_rig rig;
    rig_start(&rig, REGION_BYTES);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 0, NR_BLOCKS + 1), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, NR_BLOCKS - 1, 2), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, NR_BLOCKS, 1), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(plugged_blocks(&rig), 0);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, NR_BLOCKS - 1, 1), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 0, NR_BLOCKS - 1), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(plugged_blocks(&rig), NR_BLOCKS);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_plug_above_the_request_is_nacked)
{
    struct mem_rig rig;
    struct mem_info info;
    rig_start(&rig, 3 * BLOCK_BYTES);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 0, 4), VIRTIO_MEM_RESP_NACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 2, 2), VIRTIO_MEM_RESP_NACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 2, 1), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(plugged_blocks(&rig), 3);
    /* less is wanted than there is: no more, but unplugging goes on */
    ck_assert_int_eq(mem_set_requested(rig.mem, BLOCK_BYTES, NULL), 0);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 3, 1), VIRTIO_MEM_RESP_NACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 0, 2), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(plugged_blocks(&rig), 1);
    mem_info(rig.mem, &info);
    ck_assert_uint_eq(info.nr_nacks, 3);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_malformed_ranges_are_errors_and_change_nothing)
{
    static const struct {
        uint64_t addr;
        uint16_t nr;
    } bad[] = {{START + 4096, 1},
               {START + 1, 1},
               {START, 0},
               {START - BLOCK_BYTES, 1},
               {START - BLOCK_BYTES, 2},
               {0, 1},
               {START + REGION_BYTES, 1},
               {START + REGION_BYTES - BLOCK_BYTES, 2},
               {START, UINT16_MAX},
               {-BLOCK_BYTES, 1},
               {UINT64_MAX, UINT16_MAX},
               {UINT64_C(1) << 63, 1}};
    static const uint16_t types[] = {VIRTIO_MEM_REQ_PLUG, VIRTIO_MEM_REQ_UNPLUG, VIRTIO_MEM_REQ_STATE};
    struct mem_rig rig;
    unsigned state;
    rig_start(&rig, REGION_BYTES);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        for (unsigned t = 0; t < ARRAY_LEN(types); t++)
            ck_assert_uint_eq(ask_state(&rig, types[t], bad[i].addr, bad[i].nr, &state), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(plugged_blocks(&rig), 0);
    /* plugged already, in part; unplugged already, in part */
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 4, 1), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 3, 2), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 4, 1), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 4, 2), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 5, 1), VIRTIO_MEM_RESP_ERROR);
    /* no such request */
    ck_assert_uint_eq(ask(&rig, 4, 0, 1), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(ask(&rig, UINT16_MAX, 0, 1), VIRTIO_MEM_RESP_ERROR);
    ck_assert_uint_eq(plugged_blocks(&rig), 1);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_short_buffers_are_not_done)
{
    struct mem_rig rig;
    const struct virtio_mem_req req = {.type = htole16(VIRTIO_MEM_REQ_PLUG),
                                       .u.plug = {.addr = htole64(START), .nb_blocks = htole16(1)}};
    const uint32_t lengths[][2] = {{23, 10}, {1, 10}, {24, 9}, {24, 2}, {24, 1}, {0, 10}, {24, 0}};
    struct mem_info info;
    rig_start(&rig, REGION_BYTES);
    memcpy(fake_memory_at(&rig.memory, rig.req, sizeof(req)), &req, sizeof(req));
    for (unsigned i = 0; i < ARRAY_LEN(lengths); i++) {
        const struct fake_buffer buffers[] = {{rig.req, lengths[i][0]}, {rig.resp, lengths[i][1]}};
        uint16_t *type = fake_memory_at(&rig.memory, rig.resp, 2);
        *type = NO_ANSWER;
        ck_assert_int_eq(
            fake_driver_request(&rig.driver, 0, buffers + !lengths[i][0], lengths[i][0] != 0, lengths[i][1] != 0),
            lengths[i][1]);
        if (lengths[i][1] >= 2)
            ck_assert_uint_eq(le16toh(*type), VIRTIO_MEM_RESP_ERROR);
        mem_info(rig.mem, &info);
        ck_assert_uint_eq(info.nr_bad_buffers, i + 1);
    }
    ck_assert_uint_eq(plugged_blocks(&rig), 0);
    /* in pieces and with room to spare it is good */
    const struct fake_buffer pieces[] = {{rig.req, 5}, {{rig.req.v + 5}, 27}, {rig.resp, 1}, {{rig.resp.v + 1}, 20}};
    ck_assert_int_eq(fake_driver_request(&rig.driver, 0, pieces, 2, 2), 10);
    ck_assert_uint_eq(plugged_blocks(&rig), 1);
    ck_assert_uint_eq(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_state_is_plugged_unplugged_or_mixed)
{
    struct mem_rig rig;
    unsigned state;
    rig_start(&rig, REGION_BYTES);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 2, 3), VIRTIO_MEM_RESP_ACK);
    const struct {
        uint64_t block;
        uint16_t nr;
        unsigned state;
    } want[] = {{2, 3, VIRTIO_MEM_STATE_PLUGGED},       {4, 1, VIRTIO_MEM_STATE_PLUGGED},
                {0, 2, VIRTIO_MEM_STATE_UNPLUGGED},     {5, NR_BLOCKS - 5, VIRTIO_MEM_STATE_UNPLUGGED},
                {0, NR_BLOCKS, VIRTIO_MEM_STATE_MIXED}, {4, 2, VIRTIO_MEM_STATE_MIXED}};
    for (unsigned i = 0; i < ARRAY_LEN(want); i++) {
        ck_assert_uint_eq(
            ask_state(&rig, VIRTIO_MEM_REQ_STATE, START + want[i].block * BLOCK_BYTES, want[i].nr, &state),
            VIRTIO_MEM_RESP_ACK);
        ck_assert_uint_eq(state, want[i].state);
    }
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_pinned_block_is_busy_and_stays)
{
    struct mem_rig rig;
    rig_start(&rig, REGION_BYTES);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 0, 6), VIRTIO_MEM_RESP_ACK);
    const gpa_t pinned = {START + 4 * BLOCK_BYTES};
    ck_assert_int_eq(mm_pin(rig.thread, rig.vm, pinned, 1), 0);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 3, 2), VIRTIO_MEM_RESP_BUSY);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_BUSY);
    ck_assert_int_eq(mem_system_reset(rig.mem, rig.thread), -EBUSY);
    ck_assert_uint_eq(plugged_blocks(&rig), 6);
    ck_assert_int_eq(touch(&rig, 3), 0);
    mm_unpin(rig.vm, pinned, 1);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 3, 2), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(plugged_blocks(&rig), 4);
    struct mem_info info;
    mem_info(rig.mem, &info);
    ck_assert_uint_eq(info.nr_busy, 2);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_unplug_all_leaves_nothing)
{
    struct mem_rig rig;
    rig_start(&rig, REGION_BYTES);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 1, 3), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 9, 1), VIRTIO_MEM_RESP_ACK);
    ck_assert_int_eq(touch(&rig, 9), 0);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG_ALL, 77, 5), VIRTIO_MEM_RESP_ACK); /* range means nothing */
    ck_assert_uint_eq(plugged_blocks(&rig), 0);
    ck_assert_int_eq(touch(&rig, 9), -EFAULT);
    struct mm_vm_stat stat;
    mm_vm_stat(rig.vm, &stat);
    ck_assert_uint_eq(stat.resident_bytes, 0);
    struct mem_info info;
    mem_info(rig.mem, &info);
    ck_assert_uint_eq(info.nr_unplugged_blocks, 4);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_device_reset_keeps_blocks_and_system_reset_does_not)
{
    struct mem_rig rig;
    rig_start(&rig, REGION_BYTES);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 1, 3), VIRTIO_MEM_RESP_ACK);
    ck_assert_int_eq(touch(&rig, 2), 0);
    fake_driver_reset(&rig.driver);
    ck_assert_uint_eq(plugged_blocks(&rig), 3);
    ck_assert_int_eq(touch(&rig, 2), 0);
    ck_assert_int_eq(fake_driver_start(&rig.driver, F(UNPLUGGED_INACCESSIBLE), 0), 0);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 1, 1), VIRTIO_MEM_RESP_ACK);
    ck_assert_int_eq(mem_system_reset(rig.mem, rig.thread), 0);
    ck_assert_uint_eq(plugged_blocks(&rig), 0);
    ck_assert_int_eq(touch(&rig, 2), -EFAULT);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_requested_size_is_checked_and_told)
{
    struct mem_rig rig;
    uint64_t next = 0;
    rig_start(&rig, 0);
    fake_driver_interrupts(&rig.driver);
    ck_assert_int_eq(mem_set_requested(rig.mem, 3 * MIB, &next), -EINVAL);
    ck_assert_uint_eq(next, 4 * MIB);
    ck_assert_int_eq(mem_set_requested(rig.mem, 1, &next), -EINVAL);
    ck_assert_uint_eq(next, 2 * MIB);
    ck_assert_int_eq(mem_set_requested(rig.mem, REGION_BYTES + 1, &next), -EINVAL);
    ck_assert_uint_eq(next, REGION_BYTES);
    ck_assert_int_eq(mem_set_requested(rig.mem, UINT64_MAX, NULL), -EINVAL);
    ck_assert_int_eq(mem_set_requested(rig.mem, REGION_BYTES + BLOCK_BYTES, NULL), -EINVAL);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), 0);
    ck_assert_uint_eq(le64toh(read_config(&rig).requested_size), 0);
    ck_assert_int_eq(mem_set_requested(rig.mem, REGION_BYTES, &next), 0);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), VIRTIO_INT_CONFIG);
    ck_assert_uint_eq(le64toh(read_config(&rig).requested_size), REGION_BYTES);
    ck_assert_int_eq(mem_set_requested(rig.mem, REGION_BYTES, &next), 0);
    ck_assert_uint_eq(fake_driver_interrupts(&rig.driver), 0);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_driver_that_would_read_unplugged_memory_is_refused)
{
    struct mem_rig rig;
    const struct mem_config config = config_of(0);
    rig_init(&rig, &config);
    ck_assert_int_eq(fake_driver_start(&rig.driver, 0, 0), 0);
    ck_assert_uint_ne(fake_driver_status(&rig.driver) & VIRTIO_CONFIG_S_NEEDS_RESET, 0);
    struct mem_info info;
    mem_info(rig.mem, &info);
    ck_assert(!info.live);
    ck_assert_int_eq(fake_driver_start(&rig.driver, F(UNPLUGGED_INACCESSIBLE), 0), 0);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG_ALL, 0, 0), VIRTIO_MEM_RESP_ACK);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_full_queue_is_answered_in_turns)
{
    struct mem_rig rig;
    struct fake_used used;
    const struct virtio_mem_req req = {.type = htole16(VIRTIO_MEM_REQ_UNPLUG_ALL)};
    unsigned nr = 0;
    rig_start(&rig, REGION_BYTES);
    memcpy(fake_memory_at(&rig.memory, rig.req, sizeof(req)), &req, sizeof(req));
    const struct fake_buffer buffers[] = {{rig.req, sizeof(req)}, {rig.resp, 10}};
    while (!fake_driver_add(&rig.driver, 0, buffers, 1, 1, false, NULL))
        nr++;
    ck_assert_uint_eq(nr, 32);
    fake_driver_kick(&rig.driver, 0);
    ck_assert_int_eq(loop_turn(rig.env.loop, 0), 1);
    for (nr = 0; fake_driver_collect(&rig.driver, 0, &used); nr++)
        ;
    ck_assert_uint_eq(nr, 16);
    fake_driver_run(&rig.driver);
    for (; fake_driver_collect(&rig.driver, 0, &used); nr++)
        ;
    ck_assert_uint_eq(nr, 32);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_without_mm_keeps_the_protocol)
{
    struct mem_rig rig;
    struct mem_info info;
    rig_start(&rig, REGION_BYTES);
    rig.env.vm = NULL;
    rig.env.thread = NULL;
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_PLUG, 0, 4), VIRTIO_MEM_RESP_ACK);
    ck_assert_uint_eq(ask(&rig, VIRTIO_MEM_REQ_UNPLUG, 1, 1), VIRTIO_MEM_RESP_ACK);
    mem_info(rig.mem, &info);
    ck_assert_uint_eq(info.plugged_bytes, 3 * BLOCK_BYTES);
    ck_assert_int_eq(mem_system_reset(rig.mem, NULL), 0);
    mem_info(rig.mem, &info);
    ck_assert_uint_eq(info.plugged_bytes, 0);
    rig_fini(&rig);
}
END_TEST

START_TEST(test_virtio_mem_create_refuses_and_leaves_nothing)
{
    static const struct mem_config bad[] = {
        {.start = {START + PAGE_BYTES}, .region_bytes = REGION_BYTES, .node = MEM_NO_NODE},
        {.start = {START}, .region_bytes = REGION_BYTES + PAGE_BYTES, .node = MEM_NO_NODE},
        {.start = {START}, .region_bytes = 0, .node = MEM_NO_NODE},
        {.start = {-BLOCK_BYTES}, .region_bytes = BLOCK_BYTES, .node = MEM_NO_NODE},
        {.start = {START}, .region_bytes = REGION_BYTES, .requested_bytes = MIB, .node = MEM_NO_NODE},
        {.start = {START},
         .region_bytes = REGION_BYTES,
         .requested_bytes = REGION_BYTES + BLOCK_BYTES,
         .node = MEM_NO_NODE},
        {.start = {START}, .region_bytes = REGION_BYTES, .node = UINT16_MAX + 1},
        {.start = {START}, .region_bytes = REGION_BYTES, .node = -2}};
    static const struct guest_mem none = {0};
    const struct device_env env = {.mem = &none};
    struct mem *mem = NULL;
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(mem_create(&bad[i], &env, &mem) == -EINVAL, "config %u", i);
    const struct mem_config config = config_of(0);
    for (long n = 1; n <= 2; n++) {
        fail_alloc_at(n);
        int err = mem_create(&config, &env, &mem);
        fail_alloc_at(-1);
        ck_assert_int_eq(err, -ENOMEM);
    }
    ck_assert_int_eq(mem_create(&config, &env, &mem), 0);
    mem_destroy(mem);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_mem");
    TCase *tc = tcase_create("virtio_mem");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_virtio_mem_config_tells_the_region);
    tcase_add_test(tc, test_virtio_mem_without_a_node_offers_none);
    tcase_add_test(tc, test_virtio_mem_plug_makes_memory_and_unplug_takes_it);
    tcase_add_test(tc, test_virtio_mem_plugged_size_that_changes_is_seen_by_who_reads_it_meanwhile);
    tcase_add_test(tc, test_virtio_mem_whole_region_can_be_plugged_and_no_block_more);
    tcase_add_test(tc, test_virtio_mem_plug_above_the_request_is_nacked);
    tcase_add_test(tc, test_virtio_mem_malformed_ranges_are_errors_and_change_nothing);
    tcase_add_test(tc, test_virtio_mem_short_buffers_are_not_done);
    tcase_add_test(tc, test_virtio_mem_state_is_plugged_unplugged_or_mixed);
    tcase_add_test(tc, test_virtio_mem_pinned_block_is_busy_and_stays);
    tcase_add_test(tc, test_virtio_mem_unplug_all_leaves_nothing);
    tcase_add_test(tc, test_virtio_mem_device_reset_keeps_blocks_and_system_reset_does_not);
    tcase_add_test(tc, test_virtio_mem_requested_size_is_checked_and_told);
    tcase_add_test(tc, test_virtio_mem_driver_that_would_read_unplugged_memory_is_refused);
    tcase_add_test(tc, test_virtio_mem_full_queue_is_answered_in_turns);
    tcase_add_test(tc, test_virtio_mem_without_mm_keeps_the_protocol);
    tcase_add_test(tc, test_virtio_mem_create_refuses_and_leaves_nothing);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
