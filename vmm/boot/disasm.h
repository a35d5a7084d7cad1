/* SPDX-License-Identifier: Apache-2.0 */
/* disasm: what a guest was about to run when it stopped, for people. Capstone where build and host have it. */
#ifndef VMM_BOOT_DISASM_H
#define VMM_BOOT_DISASM_H

#include "mm/base/types.h"

/*
 * disasm_text - the instructions in @code (guest's bytes, so anything at all), the first at @rip, for a processor of @bits
 * (16, 32 or 64), into @out, which is always ended: "mov eax, 1; hlt". As many as fit, @out_bytes >= 1; none that is cut
 * off at the end of @code. Returns their number. 0: the first is no instruction or does not fit, or there is no capstone:
 * @out has the bytes, "0f 0b ff".
 */
int disasm_text(const uint8_t *code, size_t bytes, uint64_t rip, unsigned bits, char *out, size_t out_bytes);

#endif
