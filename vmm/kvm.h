/* SPDX-License-Identifier: Apache-2.0 */
/* /dev/kvm: the only file that makes KVM's system and VM calls. x86-64. */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include "mm/base/types.h"
#include "vmm/diag.h"

#include <linux/kvm.h>

struct kvm {
    int system_fd, vm_fd;
    size_t run_bytes; /* of a vCPU's shared page */
    bool has_irqchip; /* in the kernel */
    unsigned nr_slots, max_slots;
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
 * kvm_map - guest physical [gpa, gpa + bytes) is this process's memory at @hva. Whole pages. @read_only: guest writes
 * become MMIO exits. 0, or -1 with diag.
 */
must_check int kvm_map(struct kvm *kvm, gpa_t gpa, const void *hva, uint64_t bytes, bool read_only, struct diag *diag);

/* vCPU @index with its CPUID, ready to run at once. 0, or -1 with diag and nothing left. */
must_check int kvm_vcpu_open(struct kvm *kvm, unsigned index, struct kvm_vcpu *vcpu, struct diag *diag);
void kvm_vcpu_close(struct kvm_vcpu *vcpu);

/* Registers for a start in 64-bit mode, ring 0, interrupts off, @rdi as argument. 0, or -1 with diag. */
must_check int kvm_vcpu_set_entry(struct kvm_vcpu *vcpu, gpa_t entry, gpa_t page_tables, uint64_t rdi,
                                  struct diag *diag);
/* "rip 0x.. rsp 0x.. ..." into @text, which is always ended. In the vCPU's thread. */
void kvm_vcpu_describe(const struct kvm_vcpu *vcpu, char *text, size_t bytes);

#endif
