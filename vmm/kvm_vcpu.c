/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm.h"

#include "guest-images/ebbguest/abi.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* Intel SDM vol. 3, 2.5 and 3.4.5.1 */
#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_PG 0x80000000u
#define CR4_PAE 0x20u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define SEGMENT_CODE 11 /* execute, read, accessed */
#define SEGMENT_DATA 3  /* read, write, accessed */
#define SEGMENT_TSS 11  /* 64-bit, busy */

/* Intel SDM vol. 3, table 10-1 */
#define RESET_RIP 0xfff0
#define RESET_CS 0xf000

/* Selectors in the loader's table (vmm/boot/boot.h). */
#define BOOT_CODE 0x10
#define BOOT_DATA 0x18
#define BOOT_TSS 0x20

/* Intel SDM vol. 3, 11.5.1: local vector table; delivery modes in bits 8-10, mask in bit 16. */
#define APIC_LVT_LINT0 0x350
#define APIC_LVT_LINT1 0x360
#define APIC_MODE_MASK 0x10700u
#define APIC_MODE_NMI 0x400u
#define APIC_MODE_EXTINT 0x700u

/* Intel SDM vol. 4, table 2-2; vol. 3, 12.11.2.1 */
#define MSR_MISC_ENABLE 0x1a0
#define MISC_ENABLE_FAST_STRINGS 1u
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_ENABLE 0x800u
#define MTRR_WRITE_BACK 6u

static int set_cpuid(const struct kvm *kvm, int fd, unsigned index)
{
    int tsc_khz = ioctl(fd, KVM_GET_TSC_KHZ, 0);
    struct kvm_cpuid2 *mine = kvm_cpuid_make(kvm, index, tsc_khz > 0 ? (unsigned)tsc_khz : 0);

    if (!mine) {
        errno = ENOMEM;
        return -1;
    }
    int result = ioctl(fd, KVM_SET_CPUID2, mine);
    int error = errno;
    free(mine);
    errno = error;
    return result;
}

static void put_lvt(struct kvm_lapic_state *apic, unsigned at, uint32_t mode)
{
    uint32_t word;

    memcpy(&word, &apic->regs[at], sizeof(word));
    word = (word & ~APIC_MODE_MASK) | mode;
    memcpy(&apic->regs[at], &word, sizeof(word));
}

/* The first CPU of a PC has the old interrupt controller at LINT0 and the NMI at LINT1, ready when its kernel starts. */
static int set_local_apic(int fd, struct diag *diag)
{
    struct kvm_lapic_state apic;

    if (ioctl(fd, KVM_GET_LAPIC, &apic) < 0)
        return diag_host(diag, errno, "KVM_GET_LAPIC");
    put_lvt(&apic, APIC_LVT_LINT0, APIC_MODE_EXTINT);
    put_lvt(&apic, APIC_LVT_LINT1, APIC_MODE_NMI);
    if (ioctl(fd, KVM_SET_LAPIC, &apic) < 0)
        return diag_host(diag, errno, "KVM_SET_LAPIC");
    return 0;
}

/*
 * What firmware leaves behind: fast string moves, all memory write-back. Where KVM has no such register the guest sees
 * its default, and starts as well.
 */
static void set_msrs(int fd)
{
    static const struct kvm_msr_entry list[] = {
        {.index = MSR_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRINGS},
        {.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE | MTRR_WRITE_BACK},
    };

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        union {
            struct kvm_msrs head;
            uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
        } one = {.head = {.nmsrs = 1}};

        one.head.entries[0] = list[i];
        (void)ioctl(fd, KVM_SET_MSRS, &one);
    }
}

/* As the x87 and SSE units are after a reset. */
static int set_fpu(int fd, struct diag *diag)
{
    struct kvm_fpu fpu = {.fcw = 0x37f, .mxcsr = 0x1f80};

    if (ioctl(fd, KVM_SET_FPU, &fpu) < 0)
        return diag_host(diag, errno, "KVM_SET_FPU");
    return 0;
}

static int set_platform(int fd, unsigned index, struct diag *diag)
{
    set_msrs(fd);
    if (set_fpu(fd, diag))
        return -1;
    return index == 0 ? set_local_apic(fd, diag) : 0;
}

static int init_vcpu(const struct kvm *kvm, unsigned index, struct kvm_vcpu *vcpu, struct diag *diag)
{
    struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};

    vcpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (vcpu->fd < 0)
        return diag_host(diag, errno, "KVM cannot make vCPU %u", index);
    void *run = mmap(NULL, kvm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return diag_host(diag, errno, "cannot map the state of vCPU %u", index);
    vcpu->run = run;
    vcpu->run_bytes = kvm->run_bytes;
    if (set_cpuid(kvm, vcpu->fd, index) < 0)
        return diag_host(diag, errno, "KVM_SET_CPUID2");
    if (kvm->nr_platform_cpus)
        return set_platform(vcpu->fd, index, diag);
    /* With a local APIC in the kernel all but the first wait for a start-up interrupt: nobody sends one here. */
    if (kvm->has_irqchip && ioctl(vcpu->fd, KVM_SET_MP_STATE, &runnable) < 0)
        return diag_host(diag, errno, "KVM_SET_MP_STATE");
    return 0;
}

int kvm_vcpu_open(struct kvm *kvm, unsigned index, struct kvm_vcpu *vcpu, struct diag *diag)
{
    *vcpu = (struct kvm_vcpu){.fd = -1};
    if (init_vcpu(kvm, index, vcpu, diag) == 0)
        return 0;
    kvm_vcpu_close(vcpu);
    return -1;
}

void kvm_vcpu_close(struct kvm_vcpu *vcpu)
{
    if (vcpu->run)
        munmap(vcpu->run, vcpu->run_bytes);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
    *vcpu = (struct kvm_vcpu){.fd = -1};
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool code)
{
    return (struct kvm_segment){
        .limit = UINT32_MAX,
        .selector = selector,
        .type = type,
        .present = 1,
        .s = 1,
        .g = 1,
        .l = code,
        .db = !code,
    };
}

static int set_registers(struct kvm_vcpu *vcpu, const struct kvm_sregs *sregs, const struct kvm_regs *regs,
                         struct diag *diag)
{
    if (ioctl(vcpu->fd, KVM_SET_SREGS, sregs) < 0)
        return diag_host(diag, errno, "KVM_SET_SREGS");
    if (ioctl(vcpu->fd, KVM_SET_REGS, regs) < 0)
        return diag_host(diag, errno, "KVM_SET_REGS");
    return 0;
}

static void set_long_mode(struct kvm_sregs *sregs, gpa_t page_tables)
{
    sregs->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    sregs->cr3 = page_tables.v;
    sregs->cr4 = CR4_PAE;
    sregs->efer = EFER_LME | EFER_LMA;
}

int kvm_vcpu_set_entry(struct kvm_vcpu *vcpu, gpa_t entry, gpa_t page_tables, uint64_t rdi, struct diag *diag)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = entry.v, .rdi = rdi, .rflags = 2};
    struct kvm_segment data = flat_segment(EBB_SEL_DATA0, SEGMENT_DATA, false);

    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return diag_host(diag, errno, "KVM_GET_SREGS");
    sregs.cs = flat_segment(EBB_SEL_CODE0, SEGMENT_CODE, true);
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.tr = (struct kvm_segment){.limit = 0x67, .type = SEGMENT_TSS, .present = 1};
    sregs.gdt = sregs.idt = (struct kvm_dtable){0};
    set_long_mode(&sregs, page_tables);
    return set_registers(vcpu, &sregs, &regs, diag);
}

int kvm_vcpu_set_boot(struct kvm_vcpu *vcpu, const struct boot_entry *entry, struct diag *diag)
{
    bool is_long = entry->mode == BOOT_LONG;
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = entry->rip.v, .rflags = 2};
    struct kvm_segment data = flat_segment(BOOT_DATA, SEGMENT_DATA, false);

    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return diag_host(diag, errno, "KVM_GET_SREGS");
    sregs.cs = flat_segment(BOOT_CODE, SEGMENT_CODE, is_long);
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.tr = (struct kvm_segment){.limit = 0x67, .selector = BOOT_TSS, .type = SEGMENT_TSS, .present = 1};
    sregs.gdt = (struct kvm_dtable){.base = entry->gdt.v, .limit = (uint16_t)(entry->gdt_bytes - 1)};
    sregs.idt = (struct kvm_dtable){0};
    if (is_long) {
        regs.rsi = entry->data.v;
        set_long_mode(&sregs, entry->page_tables);
    } else {
        regs.rbx = entry->data.v;
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr4 = 0;
        sregs.efer = 0;
    }
    return set_registers(vcpu, &sregs, &regs, diag);
}

bool kvm_vcpu_is_reset(const struct kvm_vcpu *vcpu)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return false;
    return regs.rip == RESET_RIP && sregs.cs.selector == RESET_CS;
}

bool kvm_vcpu_code(const struct kvm_vcpu *vcpu, uint64_t *rip, gpa_t *gpa, unsigned *bits)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return false;
    struct kvm_translation at = {.linear_address = sregs.cs.base + regs.rip};
    if (ioctl(vcpu->fd, KVM_TRANSLATE, &at) < 0 || !at.valid)
        return false;
    *rip = regs.rip;
    *gpa = (gpa_t){at.physical_address};
    *bits = sregs.cs.l ? 64 : sregs.cs.db ? 32 : 16;
    return true;
}

void kvm_vcpu_describe(const struct kvm_vcpu *vcpu, char *text, size_t bytes)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0) {
        snprintf(text, bytes, "registers unknown");
        return;
    }
    snprintf(text, bytes,
             "rip 0x%llx rsp 0x%llx cs 0x%x rflags 0x%llx cr0 0x%llx cr2 0x%llx cr3 0x%llx cr4 0x%llx"
             " rax 0x%llx rbx 0x%llx rcx 0x%llx rdx 0x%llx rsi 0x%llx rdi 0x%llx rbp 0x%llx"
             " r8 0x%llx r9 0x%llx r10 0x%llx r11 0x%llx r12 0x%llx r13 0x%llx r14 0x%llx r15 0x%llx",
             regs.rip, regs.rsp, sregs.cs.selector, regs.rflags, sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4, regs.rax,
             regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.r8, regs.r9, regs.r10, regs.r11, regs.r12,
             regs.r13, regs.r14, regs.r15);
}
