/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel from ring 3 on: memory, then the steps of the workload, in step on every vCPU. */
#include "guest-images/ebbguest/gate.h"
#include "guest-images/ebbguest/kernel.h"

static void barrier(const struct cpu *cpu)
{
    if (cpu->k->nr_cpus != 1)
        gate(GATE_OUT, EBB_PORT_BARRIER, cpu->number);
}

/* The byte port is for whoever has no shared page; one word shows that it works. */
static void say_hello(void)
{
    for (const char *text = "ebbguest\n"; *text; text++)
        gate(GATE_OUT_BYTE, EBB_PORT_SERIAL, (uint8_t)*text);
}

static void print_zones(struct cpu *cpu, const struct node *node)
{
    for (unsigned i = 0; i < node->nr_zones; i++) {
        const struct zone *zone = &node->zones[i];

        print_line(cpu, "zone %s: from 0x%lx, %u pages, %u free, watermarks %u %u %u", zone->name,
                   (uint64_t)zone->start_fn << PAGE_SHIFT, zone->nr_frames, zone_nr_free(zone, PLANE_FILLED),
                   zone->wmark[WMARK_MIN], zone->wmark[WMARK_LOW], zone->wmark[WMARK_HIGH]);
    }
}

/* A line for each node, where there are several, before those of its zones. */
static void print_nodes(struct cpu *cpu, const struct ebb_node *nodes)
{
    for (uint32_t i = 0; i < cpu->k->nr_nodes; i++) {
        if (cpu->k->nr_nodes > 1)
            print_line(cpu, "node %u: vCPUs 0x%lx, %lu MiB", i, nodes[i].cpus,
                       (nodes[i].range[0].bytes + nodes[i].range[1].bytes) >> 20);
        print_zones(cpu, &cpu->k->nodes[i]);
    }
}

static void run_step(struct cpu *cpu, const struct ebb_step *step)
{
    cpu->shared->done = 0;
    if (cpu->number == 0) {
        gate(GATE_OUT, EBB_PORT_STEP, cpu->step << 1);
        step_prepare(cpu, step);
    }
    barrier(cpu);
    step_run(cpu, step);
    barrier(cpu);
    if (cpu->number == 0)
        gate(GATE_OUT, EBB_PORT_STEP, cpu->step << 1 | 1);
}

void kernel_main(uint32_t number)
{
    struct kernel *k = (struct kernel *)EBB_META_GPA;
    struct ebb_shared *host = (struct ebb_shared *)EBB_SHARED_GPA;
    struct cpu cpu = {.number = number, .k = k, .shared = &host->vcpu[number]};

    if (number == 0) {
        say_hello();
        uint64_t at = memory_map(k);
        gate(GATE_CR3, 0, k->page_tables);
        memory_init(k, at);
        cpu.shared->slots_gpa = (uintptr_t)k->slots;
    } else {
        gate(GATE_OUT, EBB_PORT_BARRIER, number); /* k is not there yet */
        gate(GATE_CR3, 0, k->page_tables);
    }
    cpu.node = memory_node_of(k, number);
    if (number == 0) {
        print_nodes(&cpu, host->nodes);
        barrier(&cpu);
    }
    for (cpu.step = 0; cpu.step < host->nr_steps; cpu.step++)
        run_step(&cpu, &host->steps[cpu.step]);
    barrier(&cpu);
    leave(EBB_EXIT_DONE);
}
