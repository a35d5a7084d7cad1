/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm.h"

#include "guest-images/ebbguest/abi.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_CPUID_ENTRIES 256
/* Three pages below the BIOS that Intel hosts without unrestricted guests need; nothing else of ours is there. */
#define TSS_GPA 0xfffbd000u

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

static int open_device(struct diag *diag)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    if (errno == EACCES || errno == EPERM)
        return diag_set(diag, EXIT_HOST, "may not open /dev/kvm: run as root, or join its group: adduser USER kvm");
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        return diag_set(diag, EXIT_HOST,
                        "this host has no /dev/kvm: switch virtualization on in its firmware, then modprobe kvm_intel "
                        "or modprobe kvm_amd");
    return diag_set(diag, EXIT_HOST, "cannot open /dev/kvm: %s", strerror(errno));
}

static int check_extensions(const struct kvm *kvm, struct diag *diag)
{
    static const struct {
        int number;
        const char *name;
    } needed[] = {
        {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
        {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
        {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
        {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    };
    int version = ioctl(kvm->system_fd, KVM_GET_API_VERSION, 0);

    if (version != KVM_API_VERSION)
        return diag_set(diag, EXIT_HOST, "/dev/kvm speaks version %d, not %d: a newer kernel mends it", version,
                        KVM_API_VERSION);
    for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
        if (ioctl(kvm->system_fd, KVM_CHECK_EXTENSION, needed[i].number) <= 0)
            return diag_set(diag, EXIT_HOST, "this kernel's KVM lacks %s: a newer kernel mends it", needed[i].name);
    }
    return 0;
}

static int read_cpuid(struct kvm *kvm, struct diag *diag)
{
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + MAX_CPUID_ENTRIES * sizeof(cpuid->entries[0]));

    if (!cpuid)
        return diag_set(diag, EXIT_HOST, "out of memory");
    cpuid->nent = MAX_CPUID_ENTRIES;
    if (ioctl(kvm->system_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
        int error = errno;
        free(cpuid);
        return diag_set(diag, EXIT_HOST, "KVM_GET_SUPPORTED_CPUID: %s", strerror(error));
    }
    kvm->cpuid = cpuid;
    return 0;
}

static int create_vm(struct kvm *kvm, struct diag *diag)
{
    kvm->vm_fd = ioctl(kvm->system_fd, KVM_CREATE_VM, 0);
    if (kvm->vm_fd < 0)
        return diag_set(diag, EXIT_HOST, "KVM_CREATE_VM: %s", strerror(errno));
    if (ioctl(kvm->system_fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_TSS_ADDR) > 0 &&
        ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_GPA) < 0)
        return diag_set(diag, EXIT_HOST, "KVM_SET_TSS_ADDR: %s", strerror(errno));
    if (ioctl(kvm->system_fd, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP) > 0)
        kvm->has_irqchip = ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, 0) == 0;
    return 0;
}

static int open_vm(struct kvm *kvm, struct diag *diag)
{
    int run_bytes, slots;

    kvm->system_fd = open_device(diag);
    if (kvm->system_fd < 0 || check_extensions(kvm, diag) || read_cpuid(kvm, diag) || create_vm(kvm, diag))
        return -1;
    run_bytes = ioctl(kvm->system_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return diag_set(diag, EXIT_HOST, "KVM_GET_VCPU_MMAP_SIZE: %s", strerror(errno));
    kvm->run_bytes = (size_t)run_bytes;
    slots = ioctl(kvm->system_fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
    kvm->max_slots = slots > 0 ? (unsigned)slots : 32; /* what kernels had before they could say */
    return 0;
}

int kvm_open(struct kvm *kvm, struct diag *diag)
{
    *kvm = (struct kvm){.system_fd = -1, .vm_fd = -1};
    if (open_vm(kvm, diag) == 0)
        return 0;
    kvm_close(kvm);
    return -1;
}

void kvm_close(struct kvm *kvm)
{
    free(kvm->cpuid);
    if (kvm->vm_fd >= 0)
        close(kvm->vm_fd);
    if (kvm->system_fd >= 0)
        close(kvm->system_fd);
}

int kvm_map(struct kvm *kvm, gpa_t gpa, const void *hva, uint64_t bytes, bool read_only, struct diag *diag)
{
    struct kvm_userspace_memory_region region = {
        .slot = kvm->nr_slots,
        .flags = read_only ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = gpa.v,
        .memory_size = bytes,
        .userspace_addr = (uintptr_t)hva,
    };

    if (kvm->nr_slots == kvm->max_slots)
        return diag_set(diag, EXIT_HOST, "KVM has no more than %u memory slots", kvm->max_slots);
    if (ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return diag_set(diag, EXIT_HOST, "KVM refuses %" PRIu64 " bytes of guest memory at 0x%" PRIx64 ": %s", bytes,
                        gpa.v, strerror(errno));
    kvm->nr_slots++;
    return 0;
}

/* --- vCPUs ----------------------------------------------------------------------------------------- */

/* The host's list with this vCPU's APIC number in it: leaf 1, and x2APIC's leaves. */
static int set_cpuid(const struct kvm *kvm, int fd, unsigned index)
{
    size_t bytes = sizeof(*kvm->cpuid) + kvm->cpuid->nent * sizeof(kvm->cpuid->entries[0]);
    struct kvm_cpuid2 *mine = malloc(bytes);

    if (!mine) {
        errno = ENOMEM;
        return -1;
    }
    memcpy(mine, kvm->cpuid, bytes);
    for (unsigned i = 0; i < mine->nent; i++) {
        struct kvm_cpuid_entry2 *leaf = &mine->entries[i];

        if (leaf->function == 1)
            leaf->ebx = (leaf->ebx & 0x00ffffffu) | index << 24;
        else if (leaf->function == 0xb || leaf->function == 0x1f)
            leaf->edx = index;
    }
    int result = ioctl(fd, KVM_SET_CPUID2, mine);
    int error = errno;
    free(mine);
    errno = error;
    return result;
}

static int init_vcpu(const struct kvm *kvm, unsigned index, struct kvm_vcpu *vcpu, struct diag *diag)
{
    struct kvm_mp_state runnable = {.mp_state = KVM_MP_STATE_RUNNABLE};

    vcpu->fd = ioctl(kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (vcpu->fd < 0)
        return diag_set(diag, EXIT_HOST, "KVM cannot make vCPU %u: %s", index, strerror(errno));
    void *run = mmap(NULL, kvm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return diag_set(diag, EXIT_HOST, "cannot map the state of vCPU %u: %s", index, strerror(errno));
    vcpu->run = run;
    vcpu->run_bytes = kvm->run_bytes;
    if (set_cpuid(kvm, vcpu->fd, index) < 0)
        return diag_set(diag, EXIT_HOST, "KVM_SET_CPUID2: %s", strerror(errno));
    /* With a local APIC in the kernel all but the first wait for a start-up interrupt: nobody sends one here. */
    if (kvm->has_irqchip && ioctl(vcpu->fd, KVM_SET_MP_STATE, &runnable) < 0)
        return diag_set(diag, EXIT_HOST, "KVM_SET_MP_STATE: %s", strerror(errno));
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

int kvm_vcpu_set_entry(struct kvm_vcpu *vcpu, gpa_t entry, gpa_t page_tables, uint64_t rdi, struct diag *diag)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = entry.v, .rdi = rdi, .rflags = 2};
    struct kvm_segment data = flat_segment(EBB_SEL_DATA0, SEGMENT_DATA, false);

    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return diag_set(diag, EXIT_HOST, "KVM_GET_SREGS: %s", strerror(errno));
    sregs.cs = flat_segment(EBB_SEL_CODE0, SEGMENT_CODE, true);
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.tr = (struct kvm_segment){.limit = 0x67, .type = SEGMENT_TSS, .present = 1};
    sregs.gdt = sregs.idt = (struct kvm_dtable){0};
    sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    sregs.cr3 = page_tables.v;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
        return diag_set(diag, EXIT_HOST, "KVM_SET_SREGS: %s", strerror(errno));
    if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0)
        return diag_set(diag, EXIT_HOST, "KVM_SET_REGS: %s", strerror(errno));
    return 0;
}

void kvm_vcpu_describe(const struct kvm_vcpu *vcpu, char *text, size_t bytes)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0) {
        snprintf(text, bytes, "registers unknown");
        return;
    }
    snprintf(text, bytes, "rip 0x%llx rsp 0x%llx cs 0x%x rflags 0x%llx cr2 0x%llx cr3 0x%llx", regs.rip, regs.rsp,
             sregs.cs.selector, regs.rflags, sregs.cr2, sregs.cr3);
}
