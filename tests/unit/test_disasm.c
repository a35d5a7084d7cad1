/* SPDX-License-Identifier: Apache-2.0 */
/* With capstone and without: the build says which, and both have to hold. */
#include "vmm/boot/disasm.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t code[] = {0xb8, 0x01, 0x00, 0x00, 0x00, 0xf4, 0xeb, 0xfe, 0x48, 0x89};
static char text[160];

START_TEST(test_disasm_instructions_become_text_or_bytes)
{
    int nr = disasm_text(code, sizeof(code), 0x1000, 64, text, sizeof(text));
#ifdef EBB_CAPSTONE
    /* The last one is cut off. */
    ck_assert_int_eq(nr, 3);
    ck_assert_str_eq(text, "mov eax, 1; hlt; jmp 0x1006");
#else
    ck_assert_int_eq(nr, 0);
    ck_assert_str_eq(text, "b8 01 00 00 00 f4 eb fe 48 89");
#endif
}
END_TEST

/* A kernel that is entered by PVH starts with 32 bits; a second processor with 16. */
START_TEST(test_disasm_other_modes_have_other_instructions)
{
    static const uint8_t bytes[] = {0x40, 0xb8, 0x01, 0x00, 0x00, 0x00, 0xf4};
    int nr = disasm_text(bytes, sizeof(bytes), 0x1000, 32, text, sizeof(text));
#ifdef EBB_CAPSTONE
    ck_assert_int_eq(nr, 3);
    ck_assert_str_eq(text, "inc eax; mov eax, 1; hlt");
    ck_assert_int_eq(disasm_text(bytes, 4, 0x1000, 16, text, sizeof(text)), 2);
    ck_assert_str_eq(text, "inc ax; mov ax, 1");
#else
    ck_assert_int_eq(nr, 0);
#endif
}
END_TEST

START_TEST(test_disasm_no_instruction_gives_the_bytes)
{
    const uint8_t bad[] = {0x06, 0x0f, 0xff};

    ck_assert_int_eq(disasm_text(bad, sizeof(bad), 0, 64, text, sizeof(text)), 0);
    ck_assert_str_eq(text, "06 0f ff");
    ck_assert_int_eq(disasm_text(bad, 0, 0, 64, text, sizeof(text)), 0);
    ck_assert_str_eq(text, "");
}
END_TEST

/* Every room: the text ends inside it, after whole instructions or whole bytes. */
START_TEST(test_disasm_text_is_cut_between_instructions)
{
    char whole[160], hex[160];

    disasm_text(code, 8, 0x1000, 64, whole, sizeof(whole));
    disasm_text((const uint8_t[]){0x06, 0x0f, 0xff}, 3, 0, 64, hex, sizeof(hex));
    for (size_t room = 1; room < 40; room++) {
        memset(text, '#', sizeof(text));
        int nr = disasm_text(code, 8, 0x1000, 64, text, room);
        size_t length = strlen(text);
        ck_assert_uint_lt(length, room);
        ck_assert_int_eq(text[room], '#');
        if (nr > 0) {
            ck_assert_int_eq(memcmp(text, whole, length), 0);
            ck_assert(whole[length] == '\0' || whole[length] == ';');
        }
        length = (memset(text, '#', sizeof(text)),
                  disasm_text((const uint8_t[]){0x06, 0x0f, 0xff}, 3, 0, 64, text, room), strlen(text));
        ck_assert_uint_lt(length, room);
        ck_assert_int_eq(text[room], '#');
        ck_assert_int_eq(memcmp(text, hex, length), 0);
        ck_assert(hex[length] == '\0' || hex[length] == ' ' || length == 0);
    }
}
END_TEST

/* A guest's bytes are anything at all. */
START_TEST(test_disasm_any_bytes_are_answered)
{
    uint32_t state = 1;

    for (unsigned i = 0; i < 2000; i++) {
        uint8_t any[16];
        for (size_t j = 0; j < sizeof(any); j++)
            any[j] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24);
        int nr = disasm_text(any, 1 + i % sizeof(any), UINT64_MAX - i, 16u << i % 3, text, sizeof(text));
        ck_assert_int_le(nr, (int)sizeof(any));
        ck_assert_uint_lt(strlen(text), sizeof(text));
        ck_assert_uint_gt(strlen(text), 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("disasm");
    TCase *tcase = tcase_create("disasm");

    tcase_add_test(tcase, test_disasm_instructions_become_text_or_bytes);
    tcase_add_test(tcase, test_disasm_other_modes_have_other_instructions);
    tcase_add_test(tcase, test_disasm_no_instruction_gives_the_bytes);
    tcase_add_test(tcase, test_disasm_text_is_cut_between_instructions);
    tcase_add_test(tcase, test_disasm_any_bytes_are_answered);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
