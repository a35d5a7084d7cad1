/* SPDX-License-Identifier: Apache-2.0 */
/* What vCPUs are told of their packages: all in one, or one for each run of vCPUs of a node. The host's list is made up. */
#include "vmm/kvm.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define NR_LEAVES 13
#define INTEL 0x756e6547u /* "Genu" */
#define AMD 0x68747541u   /* "Auth" */
#define CACHE(level) (1u | (level) << 5)

struct rig {
    struct kvm kvm;
    struct kvm_cpuid2 *host; /* heap */
};

static void rig_init(struct rig *rig, uint32_t vendor, unsigned nr_cpus, unsigned package_cpus)
{
    const struct kvm_cpuid_entry2 leaves[NR_LEAVES] = {
        {.function = 0, .eax = 0x1f, .ebx = vendor},
        {.function = 1, .ebx = 0xff550000, .edx = 1u << 28},
        {.function = 4, .index = 0, .eax = CACHE(1) | 0x3fu << 26 | 0xfffu << 14},
        {.function = 4, .index = 3, .eax = CACHE(3) | 0x3fu << 26 | 0xfffu << 14},
        {.function = 0xb, .eax = 7},
        {.function = 0x1f, .eax = 7},
        {.function = 0x40000000, .eax = 0x40000001},
        {.function = 0x40000001, .eax = 0x01ffffff},
        {.function = 0x80000001, .ecx = 2},
        {.function = 0x80000008, .ecx = 0x3007},
        {.function = 0x8000001d, .index = 0, .eax = CACHE(1) | 0xfffu << 14},
        {.function = 0x8000001d, .index = 3, .eax = CACHE(3) | 0xfffu << 14},
        {.function = 0x8000001e, .eax = 99, .ebx = 99, .ecx = 99},
    };

    rig->host = malloc(sizeof(*rig->host) + sizeof(leaves));
    ck_assert_ptr_nonnull(rig->host);
    rig->host->nent = NR_LEAVES;
    memcpy(rig->host->entries, leaves, sizeof(leaves));
    rig->kvm =
        (struct kvm){.system_fd = -1, .nr_platform_cpus = nr_cpus, .package_cpus = package_cpus, .cpuid = rig->host};
}

/* The leaf, which must be there. */
static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *cpuid, uint32_t function, uint32_t index)
{
    for (unsigned i = 0; i < cpuid->nent; i++)
        if (cpuid->entries[i].function == function && cpuid->entries[i].index == index)
            return &cpuid->entries[i];
    ck_abort_msg("no leaf 0x%x/%u", function, index);
    return NULL;
}

/* The vCPU is in a package of @nr, whose cores are told apart by @bits of an APIC number. */
static void check_vcpu(const struct rig *rig, unsigned index, unsigned nr, unsigned bits)
{
    struct kvm_cpuid2 *cpuid = kvm_cpuid_make(&rig->kvm, index, 0);
    bool amd = rig->host->entries[0].ebx == AMD;

    ck_assert_ptr_nonnull(cpuid);
    ck_assert_uint_eq(leaf(cpuid, 1, 0)->ebx >> 24, index);
    ck_assert_uint_eq(leaf(cpuid, 1, 0)->ebx >> 16 & 0xff, 1u << bits);
    ck_assert_uint_eq(leaf(cpuid, 1, 0)->edx >> 28 & 1, nr > 1);
    ck_assert_uint_eq(leaf(cpuid, 4, 0)->eax >> 14 & 0xfff, 0);
    ck_assert_uint_eq(leaf(cpuid, 4, 3)->eax >> 14 & 0xfff, nr - 1);
    ck_assert_uint_eq(leaf(cpuid, 4, 3)->eax >> 26, (1u << bits) - 1);
    ck_assert_uint_eq(leaf(cpuid, 0xb, 0)->eax, 0);
    ck_assert_uint_eq(leaf(cpuid, 0xb, 1)->eax, bits);
    ck_assert_uint_eq(leaf(cpuid, 0xb, 1)->ebx, nr);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(leaf(cpuid, 0xb, i)->edx, index);
    for (unsigned i = 0; i < cpuid->nent; i++)
        ck_assert_uint_ne(cpuid->entries[i].function, 0x1f);
    if (amd) {
        ck_assert_uint_eq(leaf(cpuid, 0x80000001, 0)->ecx, nr > 1 ? 2 : 0);
        ck_assert_uint_eq(leaf(cpuid, 0x80000008, 0)->ecx, bits << 12 | (nr - 1));
        ck_assert_uint_eq(leaf(cpuid, 0x8000001d, 0)->eax >> 14 & 0xfff, 0);
        ck_assert_uint_eq(leaf(cpuid, 0x8000001d, 3)->eax >> 14 & 0xfff, nr - 1);
        ck_assert_uint_eq(leaf(cpuid, 0x8000001e, 0)->eax, index);
        ck_assert_uint_eq(leaf(cpuid, 0x8000001e, 0)->ecx, index >> bits);
    } else {
        ck_assert_uint_eq(leaf(cpuid, 0x80000008, 0)->ecx, 0x3007);
    }
    free(cpuid);
}

/* Packages with room for 2^@bits vCPUs each, the last one with what is left. */
static void check_machine(uint32_t vendor, unsigned nr_cpus, unsigned package_cpus, unsigned bits)
{
    unsigned room = 1u << bits;
    struct rig rig;

    rig_init(&rig, vendor, nr_cpus, package_cpus);
    for (unsigned index = 0; index < nr_cpus; index++)
        check_vcpu(&rig, index, MIN_OF(room, nr_cpus - index / room * room), bits);
    free(rig.host);
}

/* Both vendors: _i. */
START_TEST(test_kvm_cpuid_without_nodes_is_one_package)
{
    static const unsigned nr_cpus[] = {1, 2, 3, 8, 64}, bits[] = {0, 1, 2, 3, 6};

    for (unsigned i = 0; i < ARRAY_LEN(nr_cpus); i++)
        check_machine(_i ? AMD : INTEL, nr_cpus[i], 0, bits[i]);
}
END_TEST

/* Full packages, a last one that is not, one with room that no vCPU takes, one for each vCPU. */
START_TEST(test_kvm_cpuid_with_nodes_has_packages_with_their_own_caches)
{
    static const unsigned nr_cpus[] = {2, 8, 5, 3, 64}, package[] = {1, 4, 4, 4, 1}, bits[] = {0, 2, 2, 2, 0};

    for (unsigned i = 0; i < ARRAY_LEN(nr_cpus); i++)
        check_machine(_i ? AMD : INTEL, nr_cpus[i], package[i], bits[i]);
}
END_TEST

/* See docs/decisions/006: it was KVM that kept the vCPU from the page. */
START_TEST(test_a_guest_that_was_told_of_async_page_faults_stood_still)
{
    struct rig rig;

    rig_init(&rig, AMD, 1, 0);
    struct kvm_cpuid2 *cpuid = kvm_cpuid_make(&rig.kvm, 0, 0);
    ck_assert_ptr_nonnull(cpuid);
    ck_assert_uint_eq(leaf(cpuid, 0x40000001, 0)->eax, 0x01ffffff & ~(1u << 4 | 1u << 10 | 1u << 14));
    free(cpuid);
    free(rig.host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("kvm_cpuid");
    TCase *tc = tcase_create("kvm_cpuid");

    tcase_add_loop_test(tc, test_kvm_cpuid_without_nodes_is_one_package, 0, 2);
    tcase_add_loop_test(tc, test_kvm_cpuid_with_nodes_has_packages_with_their_own_caches, 0, 2);
    tcase_add_test(tc, test_a_guest_that_was_told_of_async_page_faults_stood_still);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
