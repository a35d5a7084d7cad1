/* SPDX-License-Identifier: Apache-2.0 */
/* `ebb run` seen from outside: what its JSON has to say, its memory while it runs, other commands beside it. */
#ifndef TESTS_FAKE_RUN_EBB_H
#define TESTS_FAKE_RUN_EBB_H

#include "tests/fake/program.h"

#include <jansson.h>
#include <stdint.h>

#define RUN_MIB (UINT64_C(1) << 20)
/* What the process may need beyond the budget: fixed, and for each VM. */
#define RUN_OVERHEAD_BYTES (24 * RUN_MIB)
#define RUN_OVERHEAD_VM_BYTES RUN_MIB

/* Members of @object; the test fails when one is missing or something else. */
uint64_t run_number(const json_t *object, const char *name);
const char *run_text(const json_t *object, const char *name);
/* The file @name in p's directory; the caller's to json_decref. */
json_t *run_load(const struct program *p, const char *name);

/* Everything that --json promises, for a run that went well: each page right, all memory accounted for, nothing beyond
 * the budget and its overhead. @transport: NULL for any. */
void run_check_result(const json_t *json, unsigned nr_vms, uint64_t memory_bytes, const char *transport);
/* The same for one VM. */
void run_check_vm(const json_t *vm, uint64_t memory_bytes);

void run_nap(unsigned ms);
/* True as soon as the process has ended; it stays to be waited for. */
bool run_has_ended(const struct program *p);
/* Samples the process's resident memory until it ends, then waits for it. Returns the most that was seen, bytes. */
uint64_t run_watch(struct program *p);
/* Runs another ebb in the same directory; p stays as it is. */
void run_ask(const struct program *p, const char *line, struct program *answer);
/* Starts @line, which has --api a.sock and fills first, and waits until vm0 has filled at least @mib MiB. */
void run_start_filled(struct program *p, const char *line, uint64_t mib);

#endif
