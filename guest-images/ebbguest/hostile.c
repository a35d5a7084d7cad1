/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hostile driver: for the devices of its machine it is the worst guest there can be. It reads and writes registers
 * at random, brings devices up half way or wholly, with queues in wrong places, fills rings and request buffers with
 * nonsense that looks right in parts, kicks, and resets in the middle. Every vCPU does so at once, on the same rings.
 *
 * All rings and buffers stand in one block of 2 MiB, the scratch. What else it names is outside of memory. So whatever
 * a device does for it, the pages of the workload stay as they are, which a verify step behind it proves. (In a VM of
 * more than 2 GiB a half-written ring address may be memory: then it proves nothing.)
 */
#include "guest-images/ebbguest/gate.h"
#include "guest-images/ebbguest/kernel.h"

#include <errno.h>

/* virtio 1.2, 4.2.2: registers of a device */
#define REG_MAGIC 0x000
#define REG_FEATURES 0x010
#define REG_FEATURES_SEL 0x014
#define REG_DRIVER_FEATURES 0x020
#define REG_DRIVER_FEATURES_SEL 0x024
#define REG_QUEUE_SEL 0x030
#define REG_QUEUE_NUM 0x038
#define REG_QUEUE_READY 0x044
#define REG_NOTIFY 0x050
#define REG_STATUS 0x070
#define REG_DESC 0x080
#define REG_DRIVER 0x090
#define REG_DEVICE 0x0a0
#define REG_CONFIG 0x100
#define REG_END 0x200
#define MAGIC 0x74726976
#define STATUS_DRIVER 3       /* ACKNOWLEDGE, DRIVER */
#define STATUS_FEATURES_OK 11 /* and so on */
#define STATUS_DRIVER_OK 15
#define STATUS_NEEDS_RESET 0x40

#define NR_QUEUES 4 /* tried of each device; more than most have */
#define RING_BYTES 0x1000
#define RING_ENTRIES 64
#define DATA_OFFSET 0x120000 /* rings stand before it: EBB_MAX_DEVICES * NR_QUEUES * 4 areas of RING_BYTES */
#define DATA_BYTES (BLOCK_BYTES - DATA_OFFSET)
_Static_assert(EBB_MAX_DEVICES *NR_QUEUES * 4 * RING_BYTES <= DATA_OFFSET, "rings and data do not overlap");

struct descriptor {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags, next; /* split; in a packed ring: id, flags */
};

int hostile_prepare(struct kernel *k)
{
    fn_t head;

    for (unsigned i = 0; i < k->nr_nodes; i++)
        for (unsigned j = 0; j < k->nodes[i].nr_zones; j++) {
            /* the kernel's own, a driver's rings: it stays where it is */
            if (zone_alloc_type(&k->nodes[i].zones[j], BLOCK_ORDER, PLANE_FILLED, MIGRATE_UNMOVABLE, &head))
                continue;
            k->scratch = (uint64_t)head << PAGE_SHIFT;
            return 0;
        }
    return -ENOMEM;
}

static volatile uint32_t *device_register(unsigned device, uint32_t offset)
{
    return (volatile uint32_t *)(uintptr_t)(EBB_DEVICES_GPA + device * PAGE_BYTES + (offset & ~3u));
}

static uint32_t draw(struct cpu *cpu, uint32_t below)
{
    return (uint32_t)rng_below(&cpu->rng, below);
}

/* --- nonsense ----------------------------------------------------------------------------------------- */

/* Inside the scratch's data, or nowhere in memory. */
static uint64_t draw_address(struct cpu *cpu)
{
    const struct ebb_shared *host = (const struct ebb_shared *)EBB_SHARED_GPA;
    uint64_t end = ebb_memory_end(host->low_bytes, host->high_bytes);

    switch (draw(cpu, 12)) {
    case 0:
        return UINT64_MAX - draw(cpu, 8192);
    case 1:
        return EBB_DEVICES_GPA + draw(cpu, 1 << 16);
    case 2:
        return end + draw(cpu, 1 << 20) * UINT64_C(4096);
    case 3:
        return rng_next(&cpu->rng) | UINT64_C(1) << 48;
    default:
        return cpu->k->scratch + DATA_OFFSET + draw(cpu, DATA_BYTES / 2);
    }
}

/* Lengths that stay inside the scratch from any address of draw_address, but for those that go outside of memory. */
static uint32_t draw_bytes(struct cpu *cpu)
{
    static const uint32_t lengths[] = {0, 1, 2, 4, 7, 8, 10, 16, 511, 512, 513, 4095, 4096, 8192, 65536};

    return lengths[draw(cpu, ARRAY_LEN(lengths))];
}

/* A word that is a page of the scratch, one outside, a request's small number, or anything. */
static uint32_t draw_word(struct cpu *cpu)
{
    switch (draw(cpu, 5)) {
    case 0:
        return (uint32_t)((cpu->k->scratch + DATA_OFFSET + draw(cpu, DATA_BYTES)) >> PAGE_SHIFT);
    case 1:
        return 0xf0000000u | (uint32_t)rng_next(&cpu->rng);
    case 2:
        return draw(cpu, 16);
    case 3:
        return UINT32_C(1) << 31 >> draw(cpu, 32) | UINT32_C(0x80000000);
    default:
        return 0;
    }
}

static uint64_t ring_address(const struct cpu *cpu, unsigned device, unsigned queue, unsigned area)
{
    return cpu->k->scratch + ((device * NR_QUEUES + queue) * 4 + area) * (uint64_t)RING_BYTES;
}

/* --- what it does to a device --------------------------------------------------------------------------- */

static void write_address(unsigned device, uint32_t offset, uint64_t address)
{
    *device_register(device, offset) = (uint32_t)address;
    *device_register(device, offset + 4) = (uint32_t)(address >> 32);
}

static void bring_up_queue(struct cpu *cpu, unsigned device, unsigned queue)
{
    static const uint32_t offsets[] = {REG_DESC, REG_DRIVER, REG_DEVICE};

    *device_register(device, REG_QUEUE_SEL) = queue;
    *device_register(device, REG_QUEUE_NUM) = draw(cpu, 8) ? RING_ENTRIES : draw_word(cpu);
    for (unsigned i = 0; i < ARRAY_LEN(offsets); i++)
        write_address(device, offsets[i], draw(cpu, 16) ? ring_address(cpu, device, queue, i) : draw_address(cpu));
    *device_register(device, REG_QUEUE_READY) = draw(cpu, 16) ? 1 : draw_word(cpu);
}

/* As a driver does, with some steps left out or done wrong now and then. */
static void bring_up(struct cpu *cpu, unsigned device)
{
    *device_register(device, REG_STATUS) = 0;
    *device_register(device, REG_STATUS) = STATUS_DRIVER;
    for (unsigned word = 0; word < 2; word++) {
        *device_register(device, REG_FEATURES_SEL) = word;
        uint32_t offered = *device_register(device, REG_FEATURES);
        uint32_t accepted = offered & ((uint32_t)rng_next(&cpu->rng) | word); /* VERSION_1 is bit 0 of the second */

        *device_register(device, REG_DRIVER_FEATURES_SEL) = word;
        *device_register(device, REG_DRIVER_FEATURES) = draw(cpu, 16) ? accepted : (uint32_t)rng_next(&cpu->rng);
    }
    *device_register(device, REG_STATUS) = STATUS_FEATURES_OK;
    for (unsigned queue = 0; queue < NR_QUEUES; queue++) {
        if (draw(cpu, 8))
            bring_up_queue(cpu, device, queue);
    }
    *device_register(device, REG_STATUS) = draw(cpu, 16) ? STATUS_DRIVER_OK : draw_word(cpu);
}

static void fill_ring(struct cpu *cpu, uint64_t address)
{
    struct descriptor *ring = (struct descriptor *)(uintptr_t)address;
    unsigned from = draw(cpu, RING_ENTRIES), nr = 1 + draw(cpu, 8);

    for (unsigned i = from; i < from + nr && i < RING_ENTRIES; i++) {
        ring[i] = (struct descriptor){.address = draw_address(cpu), .bytes = draw_bytes(cpu)};
        ring[i].flags = draw(cpu, 4) ? (uint16_t)draw(cpu, 4) : (uint16_t)rng_next(&cpu->rng);
        ring[i].next = draw(cpu, 8) ? (uint16_t)(i + 1) : (uint16_t)rng_next(&cpu->rng);
    }
}

/* Words of a request, or of a table of descriptors, somewhere in the data. */
static void fill_data(struct cpu *cpu)
{
    uint32_t at = draw(cpu, DATA_BYTES - 4096) & ~15u;
    uint32_t *words = (uint32_t *)(uintptr_t)(cpu->k->scratch + DATA_OFFSET + at);

    if (draw(cpu, 4) == 0) {
        fill_ring(cpu, (uintptr_t)words);
        return;
    }
    for (unsigned i = 0; i < 64; i++)
        words[i] = draw_word(cpu);
}

/* More chains than there are, fewer, or just the next ones. */
static void offer(struct cpu *cpu, unsigned device, unsigned queue)
{
    volatile uint16_t *avail = (volatile uint16_t *)(uintptr_t)ring_address(cpu, device, queue, 1);

    fill_data(cpu);
    fill_ring(cpu, ring_address(cpu, device, queue, 0));
    for (unsigned i = 0; i < RING_ENTRIES; i++)
        avail[2 + i] = draw(cpu, 32) ? (uint16_t)draw(cpu, RING_ENTRIES) : (uint16_t)rng_next(&cpu->rng);
    avail[0] = (uint16_t)draw(cpu, 2);
    avail[1] = (uint16_t)(avail[1] + (draw(cpu, 32) ? 1 + draw(cpu, 4) : draw(cpu, 1 << 16)));
    *device_register(device, REG_NOTIFY) = draw(cpu, 32) ? queue : draw_word(cpu);
}

static void attack(struct cpu *cpu, unsigned device)
{
    switch (draw(cpu, 8)) {
    case 0:
        bring_up(cpu, device);
        break;
    case 1:
        *device_register(device, draw(cpu, REG_END)) = draw_word(cpu);
        break;
    case 2:
        (void)*device_register(device, draw(cpu, REG_END));
        break;
    case 3:
        *device_register(device, REG_CONFIG + draw(cpu, REG_END - REG_CONFIG)) = draw_word(cpu);
        break;
    default:
        offer(cpu, device, draw(cpu, NR_QUEUES));
        break;
    }
}

void hostile_run(struct cpu *cpu, uint64_t ops, void (*progress)(struct cpu *cpu, uint64_t done))
{
    unsigned present[EBB_MAX_DEVICES], nr = 0;
    uint32_t nr_broken = 0;

    for (unsigned device = 0; device < EBB_MAX_DEVICES; device++) {
        if (*device_register(device, REG_MAGIC) == MAGIC)
            present[nr++] = device;
    }
    for (uint64_t i = 0; i < ops && nr > 0; i++) {
        unsigned device = present[draw(cpu, nr)];

        if (*device_register(device, REG_STATUS) & STATUS_NEEDS_RESET) {
            nr_broken++;
            bring_up(cpu, device);
        }
        attack(cpu, device);
        progress(cpu, i + 1);
    }
    /* nothing is under way in a device that was reset: what it had of the scratch is the guest's again */
    for (unsigned i = 0; i < nr; i++)
        *device_register(present[i], REG_STATUS) = 0;
    print_line(cpu, "hostile: vCPU %u attacked %u devices, which asked for a reset %u times", cpu->number, nr,
               nr_broken);
}
