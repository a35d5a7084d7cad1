/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /dev/kvm: the only files that make KVM's system and VM calls. x86-64.
 *
 *   kvm.c         the VM: memory slots, interrupts, doorbells, the dirty log
 *   kvm_cpuid.c   what a vCPU says of itself
 *   kvm_vcpu.c    a vCPU: made, its registers at the start, what to say of it at the end
 */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include "mm/base/types.h"
#include "vmm/boot/boot.h"
#include "vmm/diag.h"

#include <linux/kvm.h>

/* Slots that we ever take: memory in three regions, two of the embedded guest. */
#define KVM_OWN_SLOTS 16

struct kvm {
    int system_fd, vm_fd;
    size_t run_bytes;          /* of a vCPU's shared page */
    bool has_irqchip;          /* in the kernel */
    unsigned nr_platform_cpus; /* kvm_add_platform: vCPUs that a PC kernel finds; 0: the embedded guest's */
    unsigned package_cpus;     /* vCPUs of one processor package of a PC, a power of two; 0: all of them are in one */
    unsigned nr_slots, max_slots;
    struct kvm_userspace_memory_region slot[KVM_OWN_SLOTS];
    struct kvm_cpuid2 *cpuid; /* what this host can give to a guest; heap */
};

struct kvm_vcpu {
    int fd;
    struct kvm_run *run;
    size_t run_bytes;
};

/* Opens /dev/kvm and makes a VM. 0, or -1 with diag (EXIT_HOST) and nothing left. */
must_check int kvm_open(struct kvm *kvm, struct diag *diag);
void kvm_close(struct kvm *kvm);

/*
 * kvm_add_platform - interrupt controllers and timer of a PC in the kernel, and vCPUs that know that they are @nr_cpus.
 * Before the first vCPU. All vCPUs but the first then wait for a start-up interrupt. 0, or -1 with diag.
 */
must_check int kvm_add_platform(struct kvm *kvm, unsigned nr_cpus, struct diag *diag);

/*
 * kvm_map - guest physical [gpa, gpa + bytes) is this process's memory at @hva. Whole pages. @read_only: guest writes
 * become MMIO exits. 0, or -1 with diag.
 */
must_check int kvm_map(struct kvm *kvm, gpa_t gpa, const void *hva, uint64_t bytes, bool read_only, struct diag *diag);

/*
 * Interrupts of kvm_add_platform's controllers. kvm_irq_line: a level line, up or down; any thread. kvm_irq_fd: each
 * write to eventfd @fd is one edge. 0 or -errno.
 */
int kvm_irq_line(const struct kvm *kvm, unsigned gsi, bool up);
must_check int kvm_irq_fd(const struct kvm *kvm, int fd, unsigned gsi);
/* A 32-bit write of @value at @gpa makes eventfd @fd readable, without an exit. 0 or -errno. */
must_check int kvm_doorbell(const struct kvm *kvm, int fd, gpa_t gpa, uint32_t value);

/*
 * The dirty log: pages that vCPUs wrote since the log was started, or last read. Not what this process writes itself.
 * @gpa: start of a slot, as it was mapped, not read-only; @bitmap: a bit a page, whole 64-bit words. 0 or -errno.
 */
must_check int kvm_dirty_log_start(struct kvm *kvm);
must_check int kvm_dirty_log_get(const struct kvm *kvm, gpa_t gpa, uint64_t *bitmap);
void kvm_dirty_log_stop(struct kvm *kvm);

/* vCPU @index with its CPUID, ready to run at once. 0, or -1 with diag and nothing left. */
must_check int kvm_vcpu_open(struct kvm *kvm, unsigned index, struct kvm_vcpu *vcpu, struct diag *diag);
void kvm_vcpu_close(struct kvm_vcpu *vcpu);

/* Registers for a start in 64-bit mode, ring 0, interrupts off, @rdi as argument. 0, or -1 with diag. */
must_check int kvm_vcpu_set_entry(struct kvm_vcpu *vcpu, gpa_t entry, gpa_t page_tables, uint64_t rdi,
                                  struct diag *diag);
/* The same for a kernel that boot_load has loaded: the first vCPU. 0, or -1 with diag. */
must_check int kvm_vcpu_set_boot(struct kvm_vcpu *vcpu, const struct boot_entry *entry, struct diag *diag);
/* "rip 0x.. rsp 0x.. ..." into @text, which is always ended. In the vCPU's thread. */
void kvm_vcpu_describe(const struct kvm_vcpu *vcpu, char *text, size_t bytes);
/* It stands where it would after a reset, and tells nothing of what it did before. In the vCPU's thread. */
bool kvm_vcpu_is_reset(const struct kvm_vcpu *vcpu);
/* Physical address of the instruction at RIP, by the guest's own page tables, and for a processor of how many bits it is.
 * In the vCPU's thread. False: none. */
bool kvm_vcpu_code(const struct kvm_vcpu *vcpu, uint64_t *rip, gpa_t *gpa, unsigned *bits);

/*
 * kvm_cpuid_make - CPUID of vCPU @index: the host's list, with APIC numbers and topology of this VM. Heap, free(); NULL:
 * no memory.
 */
struct kvm_cpuid2 *kvm_cpuid_make(const struct kvm *kvm, unsigned index, unsigned tsc_khz);

#endif
