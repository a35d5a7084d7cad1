/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAX_CPUID_ENTRIES 256
/* Three pages below the BIOS that Intel hosts without unrestricted guests need; nothing else of ours is there. */
#define TSS_GPA 0xfffbd000u

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
    return diag_host(diag, errno, "cannot open /dev/kvm");
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

    if (version < 0)
        return diag_set(diag, EXIT_HOST,
                        "/dev/kvm is not KVM's device: remove it, then make it with mknod /dev/kvm c 10 232");
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
        return diag_host(diag, error, "KVM_GET_SUPPORTED_CPUID");
    }
    kvm->cpuid = cpuid;
    return 0;
}

static int create_vm(struct kvm *kvm, struct diag *diag)
{
    kvm->vm_fd = ioctl(kvm->system_fd, KVM_CREATE_VM, 0);
    if (kvm->vm_fd < 0)
        return diag_host(diag, errno, "KVM_CREATE_VM");
    if (ioctl(kvm->system_fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_TSS_ADDR) > 0 &&
        ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)TSS_GPA) < 0)
        return diag_host(diag, errno, "KVM_SET_TSS_ADDR");
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
        return diag_host(diag, errno, "KVM_GET_VCPU_MMAP_SIZE");
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

    unsigned max = MIN_OF(kvm->max_slots, KVM_OWN_SLOTS);

    if (kvm->nr_slots == max)
        return diag_set(diag, EXIT_HOST, "there are no more than %u memory slots", max);
    if (ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return diag_set(diag, EXIT_HOST, "KVM refuses %" PRIu64 " bytes of guest memory at 0x%" PRIx64 ": %s", bytes,
                        gpa.v, strerror(errno));
    kvm->slot[kvm->nr_slots++] = region;
    return 0;
}

/* --- a PC's platform --------------------------------------------------------------------------------- */

int kvm_add_platform(struct kvm *kvm, unsigned nr_cpus, struct diag *diag)
{
    /* The dummy answers port 0x61, by which kernels measure the timer. */
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

    if (!kvm->has_irqchip)
        return diag_set(diag, EXIT_HOST,
                        "this host's KVM has no interrupt controllers in the kernel, which Linux guests need");
    if (ioctl(kvm->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return diag_host(diag, errno, "KVM_CREATE_PIT2");
    kvm->nr_platform_cpus = nr_cpus;
    return 0;
}

static int result_of(int returned)
{
    return returned < 0 ? -errno : 0;
}

int kvm_irq_line(const struct kvm *kvm, unsigned gsi, bool up)
{
    struct kvm_irq_level line = {.irq = gsi, .level = up};

    return result_of(ioctl(kvm->vm_fd, KVM_IRQ_LINE, &line));
}

int kvm_irq_fd(const struct kvm *kvm, int fd, unsigned gsi)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)fd, .gsi = gsi};

    return result_of(ioctl(kvm->vm_fd, KVM_IRQFD, &irqfd));
}

int kvm_doorbell(const struct kvm *kvm, int fd, gpa_t gpa, uint32_t value)
{
    struct kvm_ioeventfd doorbell = {
        .datamatch = value,
        .addr = gpa.v,
        .len = sizeof(value),
        .fd = fd,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
    };

    return result_of(ioctl(kvm->vm_fd, KVM_IOEVENTFD, &doorbell));
}

/* --- dirty log --------------------------------------------------------------------------------------- */

static int set_logging(struct kvm *kvm, unsigned slot, bool on)
{
    struct kvm_userspace_memory_region region = kvm->slot[slot];

    region.flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;
    return result_of(ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region));
}

static void stop_logging(struct kvm *kvm, unsigned nr_slots)
{
    for (unsigned i = 0; i < nr_slots; i++)
        if (!(kvm->slot[i].flags & KVM_MEM_READONLY))
            (void)set_logging(kvm, i, false); /* it only takes a flag away */
}

int kvm_dirty_log_start(struct kvm *kvm)
{
    for (unsigned i = 0; i < kvm->nr_slots; i++) {
        int err = kvm->slot[i].flags & KVM_MEM_READONLY ? 0 : set_logging(kvm, i, true);

        if (err) {
            stop_logging(kvm, i);
            return err;
        }
    }
    return 0;
}

void kvm_dirty_log_stop(struct kvm *kvm)
{
    stop_logging(kvm, kvm->nr_slots);
}

int kvm_dirty_log_get(const struct kvm *kvm, gpa_t gpa, uint64_t *bitmap)
{
    for (unsigned i = 0; i < kvm->nr_slots; i++) {
        struct kvm_dirty_log log = {.slot = kvm->slot[i].slot, .dirty_bitmap = bitmap};

        if (kvm->slot[i].guest_phys_addr == gpa.v)
            return result_of(ioctl(kvm->vm_fd, KVM_GET_DIRTY_LOG, &log));
    }
    return -EFAULT;
}
