/* SPDX-License-Identifier: Apache-2.0 */
/* int 0x80: what ring 3 asks of ring 0. eax says what, edi and rsi are its arguments. C and assembly. */
#ifndef EBBGUEST_GATE_H
#define EBBGUEST_GATE_H

#define GATE_VECTOR 0x80
#define GATE_OUT 0      /* 32 bits of rsi to port edi */
#define GATE_OUT_BYTE 1 /* 8 bits of rsi to port edi */
#define GATE_CR3 2      /* rsi becomes the page table root */

#ifndef __ASSEMBLER__
#include <stdint.h>

/* Returns when the port's device has done its work: what it wrote to memory is seen afterwards. */
static inline void gate(uint32_t what, uint32_t port, uint64_t value)
{
    __asm__ volatile("int $0x80" : "+a"(what) : "D"(port), "S"(value) : "rdx", "cc", "memory");
}
#endif

#endif
