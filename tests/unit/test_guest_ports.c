/* SPDX-License-Identifier: Apache-2.0 */
/* The ports of the embedded guest, driven by a guest that keeps no rule. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/guest_ports.h"

#define MIB (UINT64_C(1) << 20)

struct rig {
    struct guest_ports ports;
    struct bus bus;
    char line[EBB_LINE_BYTES];
    unsigned nr_exits;
    char error[400];
};

static void on_line(void *ctx, const char *line)
{
    struct rig *rig = ctx;

    ck_assert_uint_lt(strlen(line), sizeof(rig->line));
    strcpy(rig->line, line);
}

static void on_exit_port(void *ctx, const char *error)
{
    struct rig *rig = ctx;

    rig->nr_exits++;
    snprintf(rig->error, sizeof(rig->error), "%s", error ? error : "fine");
}

static void rig_init(struct rig *rig, unsigned nr_cpus)
{
    struct workload workload;
    struct diag diag = {0};
    struct guest_ports_config config = {
        .nr_cpus = nr_cpus,
        .workload = &workload,
        .seed = 9,
        .low_bytes = 64 * MIB,
        .on_line = on_line,
        .line_ctx = rig,
        .on_exit = on_exit_port,
        .exit_ctx = rig,
    };

    memset(rig, 0, sizeof(*rig));
    ck_assert_int_eq(workload_parse("fill:1M;zipf,ops=500;idle:30m", 64 * MIB, &workload, &diag), 0);
    bus_init(&rig->bus);
    ck_assert_int_eq(guest_ports_init(&rig->ports, &config), 0);
    ck_assert_int_eq(guest_ports_attach(&rig->ports, &rig->bus), 0);
}

/* What @gva is mapped to by the tables that the guest starts with; the host's own addresses stand for its pages. */
static uint64_t walk(const struct ebb_shared *shared, uint64_t gva)
{
    uint64_t table = EBB_ROM_CR3, entry = 0;

    for (unsigned shift = 39; shift >= 21; shift -= 9) {
        size_t offset = table - EBB_SHARED_GPA;
        ck_assert_uint_le(offset, sizeof(*shared) - 4096);
        memcpy(&entry, (const uint8_t *)shared + offset + (gva >> shift & 511) * 8, sizeof(entry));
        /* Present, writable, for ring 3. */
        if ((entry & 7) != 7)
            return UINT64_MAX;
        table = entry & ~UINT64_C(0xfff);
    }
    ck_assert_uint_eq(entry & 0x80, 0x80);
    return table + (gva & 0x1fffff);
}

static void out(struct rig *rig, uint64_t port, unsigned cpu, uint32_t value)
{
    bus_write(&rig->bus, BUS_PORT, port, 4, cpu, value);
}

START_TEST(test_guest_ports_first_page_tables_map_what_the_guest_starts_with)
{
    static const uint64_t mapped[] = {0,          EBB_CPU_AREA_GPA + 5, 0x3fffffff,
                                      0xc0000000, EBB_SHARED_GPA,       EBB_ROM_GPA + EBB_ROM_MAX_BYTES - 1,
                                      0xffffffff};
    static const uint64_t unmapped[] = {0x40000000, 0xbfffffff, 0x100000000, UINT64_C(1) << 39};
    struct rig rig;

    rig_init(&rig, 1);
    for (size_t i = 0; i < ARRAY_LEN(mapped); i++)
        ck_assert_uint_eq(walk(rig.ports.shared, mapped[i]), mapped[i]);
    for (size_t i = 0; i < ARRAY_LEN(unmapped); i++)
        ck_assert_uint_eq(walk(rig.ports.shared, unmapped[i]), UINT64_MAX);
    guest_ports_fini(&rig.ports);
}
END_TEST

START_TEST(test_guest_ports_parameters_are_written)
{
    struct rig rig;

    rig_init(&rig, 3);
    ck_assert_uint_eq(rig.ports.shared->magic, EBB_MAGIC);
    ck_assert_uint_eq(rig.ports.shared->low_bytes, 64 * MIB);
    ck_assert_uint_eq(rig.ports.shared->nr_cpus, 3);
    ck_assert_uint_eq(rig.ports.shared->nr_steps, 3);
    ck_assert_uint_eq(rig.ports.shared->seed, 9);
    ck_assert_uint_eq(rig.ports.shared->steps[1].ops, 500);
    ck_assert_int_eq(guest_ports_attach(&rig.ports, &rig.bus), -EEXIST);
    guest_ports_fini(&rig.ports);
}
END_TEST

START_TEST(test_guest_ports_steps_are_measured_in_order)
{
    struct rig rig;
    unsigned step;
    uint64_t done, total;

    rig_init(&rig, 2);
    out(&rig, EBB_PORT_STEP, 0, 0 << 1);
    rig.ports.shared->vcpu[0].nr_pages = 100;
    rig.ports.shared->vcpu[1].nr_pages = 156;
    rig.ports.shared->vcpu[1].done = 40;
    guest_ports_progress(&rig.ports, &step, &done, &total);
    ck_assert_uint_eq(step, 0);
    ck_assert_uint_eq(done, 40);
    ck_assert_uint_eq(total, 256);
    out(&rig, EBB_PORT_STEP, 0, 0 << 1 | 1);
    ck_assert_uint_eq(rig.ports.results[0].pages, 256);
    ck_assert_str_eq(rig.ports.results[0].name, "fill");
    ck_assert_uint_eq(rig.ports.nr_done, 1);
    guest_ports_progress(&rig.ports, &step, &done, &total);
    ck_assert_uint_eq(done, 256);
    out(&rig, EBB_PORT_STEP, 0, 1 << 1);
    rig.ports.shared->vcpu[0].nr_ops = 500;
    rig.ports.shared->vcpu[0].nr_bad = 2;
    out(&rig, EBB_PORT_STEP, 0, 1 << 1 | 1);
    ck_assert_uint_eq(rig.ports.results[1].ops, 500);
    ck_assert_uint_eq(rig.ports.results[1].pages, 0);
    ck_assert_uint_eq(rig.ports.results[1].pages_bad, 2);
    guest_ports_fini(&rig.ports);
}
END_TEST

START_TEST(test_guest_ports_step_out_of_order_is_not_heard)
{
    static const uint32_t values[] = {1u << 1, 2u << 1 | 1, 31u << 1, 32u << 1, 1000u << 1 | 1, UINT32_MAX};
    struct rig rig;

    rig_init(&rig, 1);
    rig.ports.shared->nr_steps = UINT32_MAX;
    for (unsigned i = 0; i < ARRAY_LEN(values); i++)
        out(&rig, EBB_PORT_STEP, 0, values[i]);
    ck_assert_uint_eq(rig.ports.nr_done, 0);
    ck_assert_uint_eq(rig.ports.step, 0);
    for (uint32_t step = 0; step < 3; step++) {
        out(&rig, EBB_PORT_STEP, 0, step << 1);
        out(&rig, EBB_PORT_STEP, 0, step << 1 | 1);
    }
    out(&rig, EBB_PORT_STEP, 0, 3 << 1);
    out(&rig, EBB_PORT_STEP, 0, 3 << 1 | 1);
    ck_assert_uint_eq(rig.ports.nr_done, 3);
    ck_assert_uint_eq(rig.ports.step, 2);
    guest_ports_fini(&rig.ports);
}
END_TEST

START_TEST(test_guest_ports_progress_never_passes_the_total)
{
    struct rig rig;
    unsigned step;
    uint64_t done, total;

    rig_init(&rig, 1);
    rig.ports.shared->vcpu[0].done = UINT64_MAX;
    rig.ports.shared->steps[0].size_pages = 7;
    guest_ports_progress(&rig.ports, &step, &done, &total);
    ck_assert_uint_eq(total, 256);
    ck_assert_uint_eq(done, 256);
    guest_ports_fini(&rig.ports);
}
END_TEST

START_TEST(test_guest_ports_line_without_end_is_cut_and_cleaned)
{
    struct rig rig;

    rig_init(&rig, 2);
    memset(rig.ports.shared->vcpu[1].line, 'x', EBB_LINE_BYTES);
    rig.ports.shared->vcpu[1].line[0] = '\x1b';
    rig.ports.shared->vcpu[1].line[1] = '\n';
    rig.ports.shared->vcpu[1].line[2] = (char)0xff;
    out(&rig, EBB_PORT_LINE, 1, 63);
    ck_assert_uint_eq(strlen(rig.line), EBB_LINE_BYTES - 1);
    ck_assert_mem_eq(rig.line, "???xx", 5);
    guest_ports_fini(&rig.ports);
}
END_TEST

START_TEST(test_guest_ports_end_says_why)
{
    struct rig rig;
    struct ebb_vcpu_shared *vcpu;

    rig_init(&rig, 2);
    vcpu = &rig.ports.shared->vcpu[1];
    out(&rig, EBB_PORT_EXIT, 0, EBB_EXIT_DONE);
    ck_assert_str_eq(rig.error, "fine");
    vcpu->trap = (struct ebb_trap){.vector = 14, .error = 2, .rip = 0xd0200100, .cs = 0x23, .cr2 = 0x1000};
    out(&rig, EBB_PORT_EXIT, 1, EBB_EXIT_EXCEPTION);
    ck_assert_msg(strstr(rig.error, "vCPU 1: exception 14") && strstr(rig.error, "cr2 0x1000"), "%s", rig.error);
    out(&rig, EBB_PORT_EXIT, 0, EBB_EXIT_NO_MEMORY);
    ck_assert_msg(strstr(rig.error, "no free pages left for step 1"), "%s", rig.error);
    out(&rig, EBB_PORT_EXIT, 0, 77);
    ck_assert_msg(strstr(rig.error, "code 77"), "%s", rig.error);
    vcpu->nr_bad = 1;
    vcpu->bad[0] = (struct ebb_bad){
        .gfn = 5, .found_gfn = 6, .expected_generation = 7, .found_generation = 3, .kind = EBB_BAD_SWAPPED};
    out(&rig, EBB_PORT_EXIT, 0, EBB_EXIT_DONE);
    ck_assert_str_eq(rig.error, "1 bad page; the first: page gpa 0x5000: expected generation 7, found 3 of page gpa "
                                "0x6000: swapped-over");
    vcpu->nr_bad = UINT64_MAX;
    vcpu->bad[0].kind = 12345;
    out(&rig, EBB_PORT_EXIT, 0, EBB_EXIT_DONE);
    ck_assert_msg(strstr(rig.error, "found 3: wrong"), "%s", rig.error);
    ck_assert_uint_eq(rig.nr_exits, 6);
    guest_ports_fini(&rig.ports);
}
END_TEST

/* --- waiting --------------------------------------------------------------------------------------- */

struct waiter {
    struct rig *rig;
    uint64_t port;
    unsigned cpu;
    pthread_t thread;
};

static void *wait_in_port(void *arg)
{
    struct waiter *waiter = arg;

    for (unsigned i = 0; i < 100; i++)
        out(waiter->rig, waiter->port, waiter->cpu, waiter->port == EBB_PORT_IDLE ? UINT32_MAX : waiter->cpu);
    return NULL;
}

START_TEST(test_guest_ports_barrier_lets_nobody_pass_alone)
{
    struct rig rig;
    struct waiter waiters[3];

    rig_init(&rig, 3);
    for (unsigned i = 0; i < 3; i++) {
        waiters[i] = (struct waiter){.rig = &rig, .port = EBB_PORT_BARRIER, .cpu = i};
        ck_assert_int_eq(pthread_create(&waiters[i].thread, NULL, wait_in_port, &waiters[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++)
        pthread_join(waiters[i].thread, NULL);
    ck_assert_uint_eq(rig.ports.round, 100);
    ck_assert_uint_eq(rig.ports.nr_waiting, 0);
    guest_ports_fini(&rig.ports);
}
END_TEST

START_TEST(test_guest_ports_stop_ends_every_wait)
{
    struct rig rig;
    struct waiter waiters[2] = {{.rig = &rig, .port = EBB_PORT_BARRIER}, {.rig = &rig, .port = EBB_PORT_IDLE}};

    rig_init(&rig, 2);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&waiters[i].thread, NULL, wait_in_port, &waiters[i]), 0);
    guest_ports_stop(&rig.ports);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(waiters[i].thread, NULL);
    guest_ports_fini(&rig.ports);
}
END_TEST

START_TEST(test_guest_ports_nodes_are_written)
{
    struct guest_numa numa = {
        .nr_nodes = 2, .node = {{2, 62 * MIB, -1}, {1, 6 * MIB, 0}}, .distance = {{10, 20}, {20, 10}}};
    struct workload workload;
    struct diag diag = {0};
    struct guest_ports_config config = {
        .nr_cpus = 2, .workload = &workload, .low_bytes = 64 * MIB, .high_bytes = 4 * MIB, .numa = &numa};
    struct guest_ports ports;

    ck_assert_int_eq(workload_parse("fill:1M", 64 * MIB, &workload, &diag), 0);
    ck_assert_int_eq(guest_ports_init(&ports, &config), 0);
    ck_assert_uint_eq(ports.shared->nr_nodes, 2);
    ck_assert_uint_eq(ports.shared->nodes[0].cpus, 2);
    ck_assert_uint_eq(ports.shared->nodes[0].range[0].bytes, 62 * MIB);
    ck_assert_uint_eq(ports.shared->nodes[0].range[1].bytes, 0);
    ck_assert_uint_eq(ports.shared->nodes[1].cpus, 1);
    ck_assert_uint_eq(ports.shared->nodes[1].range[0].start, 62 * MIB);
    ck_assert_uint_eq(ports.shared->nodes[1].range[0].bytes, 2 * MIB);
    ck_assert_uint_eq(ports.shared->nodes[1].range[1].start, EBB_HIGH_GPA);
    ck_assert_uint_eq(ports.shared->nodes[1].range[1].bytes, 4 * MIB);
    ck_assert_mem_eq(ports.shared->nodes[1].order, "\1\0", 2);
    guest_ports_fini(&ports);
}
END_TEST

START_TEST(test_guest_ports_without_nodes_is_one_of_all)
{
    struct rig rig;

    rig_init(&rig, 64);
    ck_assert_uint_eq(rig.ports.shared->nr_nodes, 1);
    ck_assert_uint_eq(rig.ports.shared->nodes[0].cpus, UINT64_MAX);
    ck_assert_uint_eq(rig.ports.shared->nodes[0].range[0].start, 0);
    ck_assert_uint_eq(rig.ports.shared->nodes[0].range[0].bytes, 64 * MIB);
    ck_assert_uint_eq(rig.ports.shared->nodes[0].range[1].bytes, 0);
    ck_assert_uint_eq(rig.ports.shared->nodes[0].order[0], 0);
    guest_ports_fini(&rig.ports);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guest_ports");
    TCase *tcase = tcase_create("guest_ports");

    tcase_set_timeout(tcase, 30);
    tcase_add_test(tcase, test_guest_ports_first_page_tables_map_what_the_guest_starts_with);
    tcase_add_test(tcase, test_guest_ports_parameters_are_written);
    tcase_add_test(tcase, test_guest_ports_nodes_are_written);
    tcase_add_test(tcase, test_guest_ports_without_nodes_is_one_of_all);
    tcase_add_test(tcase, test_guest_ports_steps_are_measured_in_order);
    tcase_add_test(tcase, test_guest_ports_step_out_of_order_is_not_heard);
    tcase_add_test(tcase, test_guest_ports_progress_never_passes_the_total);
    tcase_add_test(tcase, test_guest_ports_line_without_end_is_cut_and_cleaned);
    tcase_add_test(tcase, test_guest_ports_end_says_why);
    tcase_add_test(tcase, test_guest_ports_barrier_lets_nobody_pass_alone);
    tcase_add_test(tcase, test_guest_ports_stop_ends_every_wait);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
