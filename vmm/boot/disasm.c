/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/disasm.h"

#include <stdio.h>
#include <string.h>

#ifdef EBB_CAPSTONE
#include <capstone/capstone.h>

static int decode(const uint8_t *code, size_t bytes, uint64_t rip, char *out, size_t out_bytes)
{
    csh handle;
    cs_insn *insn;
    size_t used = 0;
    int nr = 0;

    if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
        return 0;
    size_t found = cs_disasm(handle, code, bytes, rip, 0, &insn);
    for (size_t i = 0; i < found; i++, nr++) {
        const char *gap = insn[i].op_str[0] ? " " : "";
        char text[sizeof(insn[i].mnemonic) + sizeof(insn[i].op_str) + 4];
        size_t length =
            (size_t)snprintf(text, sizeof(text), "%s%s%s%s", i > 0 ? "; " : "", insn[i].mnemonic, gap, insn[i].op_str);
        if (length >= out_bytes - used)
            break;
        memcpy(out + used, text, length + 1);
        used += length;
    }
    if (found > 0)
        cs_free(insn, found);
    cs_close(&handle);
    return nr;
}
#else
static int decode(const uint8_t *code, size_t bytes, uint64_t rip, char *out, size_t out_bytes)
{
    (void)code, (void)bytes, (void)rip, (void)out, (void)out_bytes;
    return 0;
}
#endif

int disasm_text(const uint8_t *code, size_t bytes, uint64_t rip, char *out, size_t out_bytes)
{
    out[0] = '\0';
    int nr = decode(code, bytes, rip, out, out_bytes);
    if (nr > 0)
        return nr;
    /* Whole bytes only: "xx", or " xx" after the first. */
    for (size_t i = 0, used = 0; i < bytes && used + (i > 0 ? 3 : 2) < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%02x", i > 0 ? " " : "", code[i]);
    return 0;
}
