/* SPDX-License-Identifier: Apache-2.0 */
/*
 * source: where views come from. Knows the memory manager and the names of its VMs; asked by name for a view.
 *
 * The API's threads read here while the main thread may take a VM away: `lock` is held over every short use of a VM, and
 * source_vm_get keeps it over a long one, and over whatever asks a device; source_vm_gone waits for both before the VM
 * may be destroyed.
 */
#ifndef VMM_SOURCE_H
#define VMM_SOURCE_H

#include "vmm/diag.h"
#include "vmm/views.h"
#include "vmm/views_numa.h"

#include <pthread.h>

struct machine;

struct source_vm {
    char name[16];
    bool there;              /* not gone yet */
    struct mm_vm *mm;        /* NULL: --backend kernel */
    struct machine *machine; /* NULL: tests of mm alone */
    unsigned nr_users;       /* source_vm_get without its put: it stays there */
};

struct source {
    struct mm_host *mm; /* NULL: --backend kernel, there is nothing to see */
    const char *algo;   /* of the store, NULL without one */
    /* What was asked for about nodes; NULL: nothing. Set before the first view is. */
    const struct numa_options *numa;
    struct mm_policy policy;
    unsigned max_vms; /* room */
    pthread_mutex_t lock;
    pthread_cond_t put; /* nr_users of a VM became 0 */
    /* guarded by lock */
    unsigned nr_vms;
    struct source_vm *vms;
};

/* Room for @max_vms VMs. 0 or -ENOMEM. */
must_check int source_init(struct source *source, struct mm_host *mm, const char *algo, unsigned max_vms);
void source_fini(struct source *source);
void source_vm_add(struct source *source, const char *name, struct mm_vm *mm, struct machine *machine);
/* Returns when no view looks at the VM, and nobody has it from source_vm_get, any more. */
void source_vm_gone(struct source *source, const char *name);
/* The VM called @name, or the first one (NULL), which stays until source_vm_put. NULL with diag (EXIT_USAGE). */
struct source_vm *source_vm_get(struct source *source, const char *name, struct diag *diag);
void source_vm_put(struct source *source, struct source_vm *vm);

/* Names of all views with a line about each; NULL name at the end. */
struct view_name {
    const char *name;
    const char *what;
    bool of_machine; /* about the machine, not its memory: --backend kernel has it, too */
};
extern const struct view_name source_views[];
/* Fills @out (SOURCE_MAX_VIEWS entries) with the bare names and a NULL. */
#define SOURCE_MAX_VIEWS 32
void source_view_names(const char *out[SOURCE_MAX_VIEWS]);

/*
 * source_view - the view called @name. @vm: only "page" and "heatmap" look at it, a VM's name or NULL for the first;
 * @gpa: "page", as text. Returns a new object; NULL with @diag: EXIT_USAGE for what the caller got wrong, EXIT_GUEST for the rest.
 */
json_t *source_view(struct source *source, const char *name, const char *vm, const char *gpa, struct diag *diag);

/*
 * source_reclaim - mm_reclaim over all VMs, in turn, until @pages pages came free. Returns how many did.
 */
uint64_t source_reclaim(struct source *source, struct mm_thread *thread, uint64_t pages);

#endif
