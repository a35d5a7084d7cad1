/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/run_ebb.h"

#include "mm/base/types.h"

#include <check.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLE_MS 2
#define MAX_SAMPLES 60000

uint64_t run_number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    ck_assert_msg(json_is_integer(value) && json_integer_value(value) >= 0, "%s is missing or no number", name);
    return (uint64_t)json_integer_value(value);
}

const char *run_text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));

    ck_assert_msg(value != NULL, "%s is missing or no text", name);
    return value;
}

json_t *run_load(const struct program *p, const char *name)
{
    char path[160];
    json_error_t error;
    json_t *json = json_load_file(program_path(p, name, path), JSON_REJECT_DUPLICATES, &error);

    ck_assert_msg(json != NULL, "%s: %s\n%s%s", name, error.text, p->out_text, p->err_text);
    return json;
}

static void check_faults(const json_t *vm, const char *kind)
{
    const json_t *hist = json_object_get(json_object_get(vm, "fault_ns"), kind);

    ck_assert_uint_le(run_number(hist, "p50"), run_number(hist, "p99"));
    ck_assert_uint_le(run_number(hist, "p99"), run_number(hist, "max"));
    ck_assert(run_number(hist, "count") > 0 || run_number(hist, "max") == 0);
}

void run_check_vm(const json_t *vm, uint64_t memory_bytes)
{
    static const char *const places[] = {"resident_bytes",  "standby_bytes", "zram_bytes",    "swap_bytes",
                                         "untouched_bytes", "balloon_bytes", "poisoned_bytes"};
    uint64_t sum = 0;

    ck_assert_str_eq(run_text(vm, "result"), "ok");
    ck_assert_uint_eq(run_number(vm, "memory_bytes"), memory_bytes);
    ck_assert_uint_gt(run_number(vm, "pages_verified"), 0);
    ck_assert_uint_eq(run_number(vm, "pages_bad"), 0);
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        sum += run_number(vm, places[i]);
    ck_assert_uint_eq(sum, memory_bytes);
    check_faults(vm, "minor");
    check_faults(vm, "major");
}

void run_check_result(const json_t *json, unsigned nr_vms, uint64_t memory_bytes, const char *transport)
{
    static const char *const vmstat[] = {"pgfault", "pgmajfault", "pswpin", "pswpout", "pgsteal_kswapd", "allocstall"};
    static const char *const zram[] = {"orig_data_bytes", "compr_data_bytes", "mem_used_bytes", "same_pages",
                                       "huge_pages"};
    const json_t *vms = json_object_get(json, "vms");
    uint64_t budget_bytes = run_number(json, "budget_bytes");

    ck_assert_str_eq(run_text(json, "result"), "ok");
    if (transport)
        ck_assert_str_eq(run_text(json, "transport"), transport);
    ck_assert_uint_le(run_number(json, "peak_resident_bytes"),
                      budget_bytes + RUN_OVERHEAD_BYTES + nr_vms * RUN_OVERHEAD_VM_BYTES);
    ck_assert_uint_gt(run_number(json, "metadata_bytes"), 0);
    ck_assert_uint_le(run_number(json, "metadata_bytes"), (budget_bytes + nr_vms * memory_bytes) / 100);
    for (size_t i = 0; i < ARRAY_LEN(vmstat); i++)
        run_number(json_object_get(json, "vmstat"), vmstat[i]);
    for (size_t i = 0; i < ARRAY_LEN(zram); i++)
        run_number(json_object_get(json, "zram"), zram[i]);
    ck_assert(json_is_array(json_object_get(json, "swaps")));
    ck_assert_uint_eq(json_array_size(vms), nr_vms);
    for (unsigned i = 0; i < nr_vms; i++)
        run_check_vm(json_array_get(vms, i), memory_bytes);
}

void run_nap(unsigned ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&time, NULL);
}

bool run_has_ended(const struct program *p)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == p->pid;
}

/* VmRSS; 0 when the process is not there any more. */
static uint64_t resident_bytes(pid_t pid)
{
    char path[64], line[160];
    uint64_t kib = 0;

    snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmRSS: %" SCNu64, &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib * 1024;
}

uint64_t run_watch(struct program *p)
{
    uint64_t most = 0;

    for (unsigned i = 0; i < MAX_SAMPLES && !run_has_ended(p); i++) {
        most = MAX_OF(most, resident_bytes(p->pid));
        run_nap(SAMPLE_MS);
    }
    program_wait(p);
    return most;
}

void run_ask(const struct program *p, const char *line, struct program *answer)
{
    *answer = *p;
    answer->out = memfd_create("answer", MFD_CLOEXEC);
    answer->err = memfd_create("fault", MFD_CLOEXEC);
    program_run(answer, line);
    close(answer->out);
    close(answer->err);
}

void run_start_filled(struct program *p, const char *line, uint64_t mib)
{
    struct program answer;

    program_init(p);
    program_start(p, line);
    for (int i = 0; i < 1500 && !run_has_ended(p); i++) {
        uint64_t used = 0;
        run_ask(p, "show free --json --api a.sock", &answer);
        json_t *json = json_loads(answer.out_text, 0, NULL);
        const json_t *vm = json_array_get(json_object_get(json, "vms"), 0);
        if (vm)
            used = run_number(vm, "memory_bytes") - run_number(vm, "untouched_bytes");
        json_decref(json);
        if (used >= mib * RUN_MIB)
            return;
        run_nap(20);
    }
    kill(p->pid, SIGKILL);
    program_wait(p);
    ck_abort_msg("the guest never filled %u MiB\n%s%s", (unsigned)mib, p->out_text, p->err_text);
}
