/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a vCPU says of itself: what the host's KVM supports, with this VM's facts in it.
 *
 *   topology   one thread a core, one core a vCPU; APIC number = vCPU number. One package, but for a guest with NUMA
 *              nodes: then as many vCPUs as kvm.package_cpus says are one, with their own last-level cache. Leaves 1, 4,
 *              0xb (Intel), 0x80000001, 0x80000008, 0x8000001d, 0x8000001e (AMD). 0x1f is left out: kernels then read 0xb
 *   clocks     the TSC's frequency by leaf 0x40000010, where the TSC never changes its own; kvmclock says it anyway.
 *              Not leaf 0x15: its crystal would also be taken for the APIC timer's clock, which KVM runs at 1 GHz
 *   faults     not asynchronous: a vCPU waits for its page
 *
 * Sources: Intel SDM vol. 2A "CPUID", AMD APM vol. 3 appendix E, Linux Documentation/virt/kvm/x86/cpuid.rst.
 */
#include "vmm/kvm.h"

#include <asm/kvm_para.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define MORE_ENTRIES 4 /* 0xb has three, 0x40000010 one */

#define LEAF1_EDX_HTT (1u << 28)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define AMD1_ECX_CMP_LEGACY (1u << 1)
#define LEVEL_SMT 1u
#define LEVEL_CORE 2u
#define KVM_LEAF 0x40000000u
#define KVM_FEATURES_LEAF 0x40000001u
#define KVM_TIMING_LEAF 0x40000010u
#define APIC_BUS_KHZ 1000000u /* KVM's APIC timer counts ns */
/* docs/decisions/006-no-async-page-faults.md */
#define ASYNC_PAGE_FAULTS                                                                                              \
    (1u << KVM_FEATURE_ASYNC_PF | 1u << KVM_FEATURE_ASYNC_PF_VMEXIT | 1u << KVM_FEATURE_ASYNC_PF_INT)
#define INVARIANT_TSC 0x100u /* edx of 0x80000007 */

/* The processor package that a vCPU is in. */
struct package {
    unsigned number, nr_cpus;
    unsigned bits; /* of an APIC number, that tell its cores apart */
};

static struct package package_of(const struct kvm *kvm, unsigned index)
{
    unsigned most = kvm->package_cpus ? kvm->package_cpus : kvm->nr_platform_cpus, bits = 0;

    while (1u << bits < most)
        bits++;
    unsigned number = index >> bits;
    return (struct package){number, MIN_OF(most, kvm->nr_platform_cpus - (number << bits)), bits};
}

static void put_bits(uint32_t *word, unsigned shift, unsigned width, uint32_t value)
{
    uint32_t mask = ((1u << width) - 1) << shift;

    *word = (*word & ~mask) | (value << shift & mask);
}

/* Deterministic cache parameters: the last level is the package's, the others are a core's own. */
static void set_cache(struct kvm_cpuid_entry2 *leaf, unsigned nr_cpus)
{
    unsigned level = leaf->eax >> 5 & 7;

    if ((leaf->eax & 0x1f) == 0)
        return;
    put_bits(&leaf->eax, 14, 12, level >= 3 ? nr_cpus - 1 : 0);
}

static void set_leaf(struct kvm_cpuid_entry2 *leaf, unsigned index, const struct package *package, bool tsc_deadline)
{
    unsigned nr_cpus = package->nr_cpus;

    switch (leaf->function) {
    case 1:
        put_bits(&leaf->ebx, 24, 8, index);
        put_bits(&leaf->ebx, 16, 8, 1u << package->bits);
        leaf->ecx |= LEAF1_ECX_HYPERVISOR | (tsc_deadline ? LEAF1_ECX_TSC_DEADLINE : 0);
        leaf->edx = nr_cpus > 1 ? leaf->edx | LEAF1_EDX_HTT : leaf->edx & ~LEAF1_EDX_HTT;
        break;
    case 4:
        set_cache(leaf, nr_cpus);
        if (leaf->eax & 0x1f)
            put_bits(&leaf->eax, 26, 6, (1u << package->bits) - 1);
        break;
    case KVM_FEATURES_LEAF:
        leaf->eax &= ~ASYNC_PAGE_FAULTS;
        break;
    case 0x80000001:
        leaf->ecx = nr_cpus > 1 ? leaf->ecx | AMD1_ECX_CMP_LEGACY : leaf->ecx & ~AMD1_ECX_CMP_LEGACY;
        break;
    case 0x80000008:
        leaf->ecx = package->bits << 12 | (nr_cpus - 1);
        break;
    case 0x8000001d:
        set_cache(leaf, nr_cpus);
        break;
    case 0x8000001e:
        leaf->eax = index;
        leaf->ebx = index;                  /* core number; bits 8-15: one thread */
        leaf->ecx = package->number & 0xff; /* its node: one a package */
        break;
    default:
        break;
    }
}

static bool is_intel(const struct kvm_cpuid2 *cpuid)
{
    return cpuid->entries[0].function == 0 && cpuid->entries[0].ebx == 0x756e6547; /* "Genu" */
}

static void add_levels(struct kvm_cpuid2 *cpuid, unsigned index, const struct package *package)
{
    const struct kvm_cpuid_entry2 levels[] = {
        {.ebx = 1, .ecx = LEVEL_SMT << 8},
        {.index = 1, .eax = package->bits, .ebx = package->nr_cpus, .ecx = LEVEL_CORE << 8 | 1},
        {.index = 2, .ecx = 2},
    };

    for (unsigned i = 0; i < ARRAY_LEN(levels); i++) {
        struct kvm_cpuid_entry2 *leaf = &cpuid->entries[cpuid->nent++];

        *leaf = levels[i];
        leaf->function = 0xb;
        leaf->edx = index;
        leaf->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    }
}

static void add_timing(struct kvm_cpuid2 *cpuid, unsigned tsc_khz)
{
    for (unsigned i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == KVM_LEAF)
            cpuid->entries[i].eax = MAX_OF(cpuid->entries[i].eax, KVM_TIMING_LEAF);
    cpuid->entries[cpuid->nent++] =
        (struct kvm_cpuid_entry2){.function = KVM_TIMING_LEAF, .eax = tsc_khz, .ebx = APIC_BUS_KHZ};
}

/* Of a PC's vCPU. */
static void set_platform(const struct kvm *kvm, struct kvm_cpuid2 *cpuid, unsigned index, unsigned tsc_khz)
{
    bool has_levels = false, steady_tsc = false;
    /* It comes with the local APIC in the kernel, which the list of supported features does not know of. */
    bool tsc_deadline = ioctl(kvm->system_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    struct package package = package_of(kvm, index);
    unsigned kept = 0;

    for (unsigned i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 leaf = cpuid->entries[i];

        if (leaf.function == 0)
            has_levels = leaf.eax >= 0xb;
        if (leaf.function == 0x80000007)
            steady_tsc = leaf.edx & INVARIANT_TSC;
        if (leaf.function == 0xb || leaf.function == 0x1f || leaf.function == KVM_TIMING_LEAF)
            continue;
        /* Intel's 0x80000001 and 0x80000008 have nothing to say of cores. */
        if (!(is_intel(cpuid) && leaf.function > 0x80000000u))
            set_leaf(&leaf, index, &package, tsc_deadline);
        cpuid->entries[kept++] = leaf;
    }
    cpuid->nent = kept;
    if (has_levels)
        add_levels(cpuid, index, &package);
    if (steady_tsc && tsc_khz)
        add_timing(cpuid, tsc_khz);
}

/* Of the embedded guest's: it only looks for its number. */
static void set_number(struct kvm_cpuid2 *cpuid, unsigned index)
{
    for (unsigned i = 0; i < cpuid->nent; i++) {
        struct kvm_cpuid_entry2 *leaf = &cpuid->entries[i];

        if (leaf->function == 1)
            put_bits(&leaf->ebx, 24, 8, index);
        else if (leaf->function == 0xb || leaf->function == 0x1f)
            leaf->edx = index;
    }
}

struct kvm_cpuid2 *kvm_cpuid_make(const struct kvm *kvm, unsigned index, unsigned tsc_khz)
{
    size_t bytes = sizeof(*kvm->cpuid) + kvm->cpuid->nent * sizeof(kvm->cpuid->entries[0]);
    struct kvm_cpuid2 *mine = malloc(bytes + MORE_ENTRIES * sizeof(kvm->cpuid->entries[0]));

    if (!mine)
        return NULL;
    memcpy(mine, kvm->cpuid, bytes);
    if (kvm->nr_platform_cpus)
        set_platform(kvm, mine, index, tsc_khz);
    else
        set_number(mine, index);
    return mine;
}
