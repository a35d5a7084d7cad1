/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/boot/disasm.h"

#include <stdio.h>
#include <string.h>

#ifdef EBB_CAPSTONE
#include <capstone/capstone.h>
#include <dlfcn.h>

#define TEXT_OF(number) TEXT_OF_IT(number)
#define TEXT_OF_IT(number) #number
#define LIBRARY_VERSION TEXT_OF(CS_API_MAJOR) /* of the headers, so of the calls */

/* Its tables take 3 MiB of every process that is linked to it: it is loaded when a guest has stopped. */
#define CAPSTONE_CALLS(X)                                                                                              \
    X(open)                                                                                                            \
    X(disasm)                                                                                                          \
    X(free)                                                                                                            \
    X(close)

struct capstone_calls {
#define X(name) __typeof__(&cs_##name) name;
    CAPSTONE_CALLS(X)
#undef X
};

static bool load_capstone(struct capstone_calls *calls)
{
    void *library = dlopen("libcapstone.so." LIBRARY_VERSION, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return false;
#define X(name)                                                                                                        \
    if (!(*(void **)(void *)&calls->name = dlsym(library, "cs_" #name)))                                               \
        return false;
    CAPSTONE_CALLS(X)
#undef X
    return true;
}

static int decode(const uint8_t *code, size_t bytes, uint64_t rip, unsigned bits, char *out, size_t out_bytes)
{
    cs_mode mode = bits == 64 ? CS_MODE_64 : bits == 32 ? CS_MODE_32 : CS_MODE_16;
    struct capstone_calls cs;
    csh handle;
    cs_insn *insn;
    size_t used = 0;
    int nr = 0;

    if (!load_capstone(&cs) || cs.open(CS_ARCH_X86, mode, &handle) != CS_ERR_OK)
        return 0;
    size_t found = cs.disasm(handle, code, bytes, rip, 0, &insn);
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
        cs.free(insn, found);
    cs.close(&handle);
    return nr;
}
#else
static int decode(const uint8_t *code, size_t bytes, uint64_t rip, unsigned bits, char *out, size_t out_bytes)
{
    (void)code, (void)bytes, (void)rip, (void)bits, (void)out, (void)out_bytes;
    return 0;
}
#endif

int disasm_text(const uint8_t *code, size_t bytes, uint64_t rip, unsigned bits, char *out, size_t out_bytes)
{
    out[0] = '\0';
    int nr = decode(code, bytes, rip, bits, out, out_bytes);
    if (nr > 0)
        return nr;
    /* Whole bytes only: "xx", or " xx" after the first. */
    for (size_t i = 0, used = 0; i < bytes && used + (i > 0 ? 3 : 2) < out_bytes; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%02x", i > 0 ? " " : "", code[i]);
    return 0;
}
