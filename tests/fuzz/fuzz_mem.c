/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-mem: requests, good and bad, with a driver that does anything. */
#include "devices/mem/mem.h"
#include "tests/fuzz/fuzz_mm.h"

#define START (2 * FUZZ_MIB)
#define REGION_BYTES (16 * FUZZ_MIB)
/* Where the host's part of the input writes a request for the driver to send. */
#define REQUEST_GPA UINT64_C(0x8000)

static struct fuzz_rig rig;
static struct fuzz_mm mm;

/* A request that is almost good. */
static void write_request(struct fuzz_input *in)
{
    uint8_t block = fuzz_u8(in), odd = fuzz_u8(in);
    struct virtio_mem_req req = {.type = fuzz_u8(in) % 5};
    req.u.plug.addr = START + block % 10 * BLOCK_BYTES - (odd < 16 ? odd * BLOCK_BYTES : odd < 20 ? odd : 0);
    req.u.plug.nb_blocks = fuzz_u8(in) % 10;
    if (guest_mem_write(&rig.mem, (gpa_t){REQUEST_GPA}, &req, sizeof(req)))
        fuzz_fail("the low region is too small");
}

/* What the host asks meanwhile. */
static void poke(void *ctx, struct fuzz_input *in)
{
    struct mem *mem = ctx;
    uint64_t next;
    switch (fuzz_u8(in) % 6) {
    case 0:
        if (mem_set_requested(mem, fuzz_u8(in) * MEM_BLOCK_BYTES / 2, &next) &&
            (next > REGION_BYTES || next % MEM_BLOCK_BYTES))
            fuzz_fail("a next size that is none");
        break;
    case 1:
        if (mem_system_reset(mem, mm.thread))
            fuzz_fail("pinned by nobody");
        break;
    case 2:
        fuzz_mm_touch(&mm, (gpa_t){START + fuzz_u8(in) % 8 * BLOCK_BYTES});
        break;
    default:
        write_request(in);
    }
}

static void check_map(struct mem *mem)
{
    struct mem_info info;
    struct mm_vm_stat stat;
    uint64_t plugged = 0;
    mem_info(mem, &info);
    mm_vm_stat(mm.vm, &stat);
    for (uint64_t at = 0; at < REGION_BYTES; at += MEM_BLOCK_BYTES)
        plugged += mem_is_plugged(mem, (gpa_t){START + at}) ? MEM_BLOCK_BYTES : 0;
    if (plugged != info.plugged_bytes || stat.unplugged_bytes != REGION_BYTES - plugged)
        fuzz_fail("device and mm do not agree on what is plugged");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const struct mm_region regions[] = {{.start = {0}, .bytes = START},
                                               {.start = {START}, .bytes = REGION_BYTES, .unplugged = true}};
    static const struct mem_config config = {
        .name = "mem0", .start = {START}, .region_bytes = REGION_BYTES, .requested_bytes = REGION_BYTES / 2, .node = 0};
    struct mem *mem;

    fuzz_prepare(&rig);
    fuzz_mm_prepare(&mm, &rig, regions, ARRAY_LEN(regions));
    if (mem_create(&config, &rig.env, &mem))
        fuzz_fail("no device");
    fuzz_run(&rig, mem_device(mem), data, bytes, poke, mem);
    fuzz_mm_check(&mm);
    check_map(mem);
    if (mem_system_reset(mem, mm.thread))
        fuzz_fail("pinned by nobody");
    mem_destroy(mem);
    fuzz_mm_renew(&mm);
    return 0;
}
