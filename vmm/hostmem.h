/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hostmem: struct host_ops over the kernel. One arena, one range a VM, and a userfaultfd for each of them:
 *
 *        arena, its userfaultfd (WP only)               guest range, its userfaultfd (MISSING; WP too where it copies)
 *     [slot][slot][    ][slot] ...      --- place --->  [page][    ][page] ... [stop page]
 *                                       <--- take ----
 *
 * An operation goes through the userfaultfd of its destination. The arena's never has an event: its slots may be
 * filled in place, by the kernel's own fault. A VM's has the faults of its own vCPUs only, so VMs do not wake each
 * other's fault threads.
 *
 *   hostmem.c       arena, ranges, what both transports share
 *   hostmem_move.c  UFFDIO_MOVE: the physical page itself goes over
 *   hostmem_copy.c  UFFDIO_COPY, then MADV_DONTNEED of the original; needs no Linux 6.8
 *   hostmem_node.c  nodes: each has a part of the slots, and new pages of guests come from the one that is named
 *
 * No locks: mm/ promises that no two threads work on the same pages, and the kernel does the rest.
 */
#ifndef VMM_HOSTMEM_H
#define VMM_HOSTMEM_H

#include <pthread.h>
#include <stdatomic.h>

#include "mm/mm.h"
#include "vmm/diag.h"
#include "vmm/guest_range.h"

/* Pages in one step of the copying transport: for so long a page is held twice. */
#define HOSTMEM_COPY_PAGES 64u

struct hostmem_node {
    int id;     /* the host's number of it; MM_NODE_ANY, for all of them or none: pages are where the kernel likes */
    fn_t start; /* its slots, whole blocks, behind those of the node before */
    uint32_t nr_slots; /* > 0 */
};

struct hostmem_config {
    uint32_t nr_slots; /* of the arena; rounded up to whole blocks */
    bool move;         /* UFFDIO_MOVE; otherwise copy */
    /* Guest pages that follow each other are on different nodes: khugepaged would make one page of them, on one node. */
    bool scattered;
    unsigned nr_nodes; /* 0: one, MM_NODE_ANY */
    struct hostmem_node nodes[MM_MAX_NODES];
    /* What host_ops.kick does; may be NULL. */
    void (*kick)(void *ctx, enum mm_worker worker);
    void *kick_ctx;
};

enum hostmem_vm_state {
    HOSTMEM_VM_LIVE,
    HOSTMEM_VM_CLOSING,  /* take() is refused, those under way come to their end */
    HOSTMEM_VM_RELEASED, /* faults are answered with zero pages: nothing of this VM is worth keeping */
};

/* Guest memory of one VM. */
struct hostmem_vm {
    struct hostmem *hm;
    struct guest_range range; /* with the stop page as its tail */
    char *stop_page;          /* registered like guest memory; faultd.c ends its threads with it */
    int uffd;
    bool says_who;        /* events have the number of the thread that faults: Linux 4.14 */
    vmid_t id;            /* 0: not attached */
    atomic_int state;     /* enum hostmem_vm_state */
    atomic_uint nr_takes; /* take() under way */
    atomic_uchar *tables; /* by block of the range: it may have a page table. See hostmem_block_clear */
};

struct hostmem {
    struct host_ops ops;
    struct hostmem_config config;
    char *arena;
    uint64_t arena_bytes;
    bool frees_tables; /* MADV_DONTNEED of a whole block frees its page table: Linux 6.14, CONFIG_PT_RECLAIM */
    char *zeros;       /* HOSTMEM_COPY_PAGES pages, never written: all are the kernel's one zero page */
    int uffd;
    int pagemap;                     /* which pages of this process are present */
    atomic_uchar *tables;            /* by block of the arena */
    bool bound;                      /* to nodes; thread_node is there */
    pthread_key_t thread_node;       /* the node in config that the thread's policy is for */
    struct hostmem_vm *_Atomic *vms; /* by vmid_t */
};

/* Features of uffd_probe that the transports need. */
bool hostmem_can_move(uint64_t features);
bool hostmem_can_copy(uint64_t features);

/*
 * hostmem_create - with nodes, the calling thread has the memory policy MPOL_LOCAL until hostmem_destroy, which is its
 * default said aloud; start the threads that touch guest memory from it (hostmem_node.c says why).
 * 0, or -1 with diag and nothing left.
 */
must_check int hostmem_create(const struct hostmem_config *config, struct hostmem **out, struct diag *diag);
/* Every VM must have been destroyed. */
void hostmem_destroy(struct hostmem *hm);

/* Guest memory, all absent. 0, or -1 with diag and nothing left. */
must_check int hostmem_vm_create(struct hostmem *hm, const struct mm_region *regions, unsigned nr,
                                 struct hostmem_vm **out, struct diag *diag);
/* From now on host_ops finds the VM by @id; @id is free. */
void hostmem_vm_attach(struct hostmem_vm *vm, vmid_t id);
/* Detaches too. Nobody uses the memory, no operation is under way. */
void hostmem_vm_destroy(struct hostmem_vm *vm);

/*
 * hostmem_vm_release - the VM is lost: take() is refused with -EBUSY from now on, place() throws the pages away, and
 * whoever waits for a page is woken to fault once more. Any thread.
 */
void hostmem_vm_release(struct hostmem_vm *vm);
bool hostmem_vm_is_released(const struct hostmem_vm *vm);
/* Answers one fault of a released VM: a page of zeros, or the lifting of write protection. Any thread. */
void hostmem_vm_answer(struct hostmem_vm *vm, gpa_t gpa);

/* --- between hostmem.c and the transports --- */

static inline char *hostmem_slot(const struct hostmem *hm, fn_t fn)
{
    return hm->arena + (uint64_t)fn * PAGE_BYTES;
}
static inline struct hostmem_vm *hostmem_vm_get(const struct hostmem *hm, vmid_t vm)
{
    return atomic_load_explicit(&hm->vms[vm], memory_order_acquire); /* with hostmem_vm_attach */
}
/* Address of guest pages [gfn, gfn + nr), which lie inside one region. */
char *hostmem_guest(const struct hostmem_vm *vm, gfn_t gfn, uint32_t nr);

/* Bit i of *mask: page i of [start, start + nr) has content; nr <= HOSTMEM_COPY_PAGES. 0 or -EIO. */
must_check int hostmem_present(const struct hostmem *hm, const char *start, uint32_t nr, uint64_t *mask);

/*
 * hostmem_block_clear - a whole empty block is about to get a huge page: without its page table, if it may have one,
 * for over a page table the kernel would split the huge page, 400 us. MADV_DONTNEED of an empty block frees the table
 * in 1.5 us, where frees_tables is true. hostmem_block_note - a part of pages [page, page + nr) of a range changes, not
 * a whole huge page: its blocks have tables.
 */
void hostmem_block_clear(char *base, atomic_uchar *tables, uint64_t page);
void hostmem_block_note(atomic_uchar *tables, uint64_t page, uint32_t nr);

/* Policies of the slots. 0, or -1 with diag; hostmem_nodes_close is needed in any case. */
must_check int hostmem_nodes_open(struct hostmem *hm, struct diag *diag);
void hostmem_nodes_close(struct hostmem *hm);
/* Index in config.nodes of the node that slot @fn is of. */
unsigned hostmem_node_of(const struct hostmem *hm, fn_t fn);
/* New pages that the calling thread makes in guests are of this node. 0; -ENOMEM: it may not be used any more. */
must_check int hostmem_node_use(struct hostmem *hm, unsigned node);

/* hostmem_note_fault - a fault took its thread @ns of CPU time outside mm_fault: ops.fault_ns is the mean. Any thread. */
void hostmem_note_fault(struct hostmem *hm, uint64_t ns);

/* Contracts as in host_ops.h; the VM is not released. */
int hostmem_move_take(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done);
int hostmem_move_place(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done);
int hostmem_copy_take(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done);
int hostmem_copy_place(struct hostmem_vm *vm, gfn_t gfn, fn_t fn, uint32_t nr, uint32_t *done);

#endif
