/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ring 3 asks of ring 0. eax says what, edi and rsi are its arguments. C and assembly.
 *
 * The way is `int 4`. Its exception, overflow, cannot arise in 64-bit code; and a software KVM that runs ring 3 on the
 * processor hands on the vectors that Linux opens for ring 3 (3 and 4), while others, 0x80 too, came back as invalid
 * opcodes. SYSCALL is no way either: there the first OUT behind it was seen twice.
 */
#ifndef EBBGUEST_GATE_H
#define EBBGUEST_GATE_H

#define GATE_VECTOR 4
#define GATE_OUT 0      /* 32 bits of rsi to port edi */
#define GATE_OUT_BYTE 1 /* 8 bits of rsi to port edi */
#define GATE_CR3 2      /* rsi becomes the page table root */

#ifndef __ASSEMBLER__
#include <stdint.h>

/* Returns when the port's device has done its work: what it wrote to memory is seen afterwards. */
static inline void gate(uint32_t what, uint32_t port, uint64_t value)
{
    __asm__ volatile("int %1" : "+a"(what) : "i"(GATE_VECTOR), "D"(port), "S"(value) : "rdx", "cc", "memory");
}
#endif

#endif
