/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All code of ring 0: entry, the one gate for ring 3, processor exceptions. Short, since a software KVM emulates ring 0
 * instruction by instruction. Everything else, the rest of the kernel included, runs in ring 3.
 *
 * Interrupts stay off in ring 3 too: there are none, and with them off KVM waits for a missing page in the vCPU's own
 * thread instead of handing it to a worker.
 *
 *   vCPU area   +0       stack of ring 3, grows down from +0x2000
 *               +0x2000  GDT
 *               +0x2080  TSS
 *               +0x2100  number of the vCPU
 *               +0x3000  stack of ring 0, grows down
 */
#include "guest-images/ebbguest/abi.h"
#include "guest-images/ebbguest/gate.h"

#define STACK3_END 0x2000
#define GDT 0x2000
#define TSS 0x2080
#define CPU_NUMBER 0x100 /* from the ring 0 page */
#define STACK0_END 0x3000
#define GDT_BYTES 0x38
#define TSS_BYTES 0x68

#define ROM(symbol) (symbol - rom_start + EBB_ROM_GPA)

    .section .boot, "ax"
    .code64
    .global rom_start
rom_start:
    imul    $EBB_CPU_AREA_BYTES, %edi, %ebx
    add     $EBB_CPU_AREA_GPA, %ebx
    lea     STACK0_END(%rbx), %rsp
    mov     %edi, GDT + CPU_NUMBER(%rbx)

    /* The GDT of this vCPU: five fixed entries, then its TSS. The area lies below 1 MiB: 20 bits of base. */
    mov     gdt + 0x08(%rip), %rax
    mov     %rax, GDT + 0x08(%rbx)
    mov     gdt + 0x10(%rip), %rax
    mov     %rax, GDT + 0x10(%rbx)
    mov     gdt + 0x18(%rip), %rax
    mov     %rax, GDT + 0x18(%rbx)
    mov     gdt + 0x20(%rip), %rax
    mov     %rax, GDT + 0x20(%rbx)
    lea     TSS(%rbx), %rax
    shl     $16, %rax
    mov     $0x0000890000000000 + TSS_BYTES - 1, %rdx
    or      %rdx, %rax
    mov     %rax, GDT + EBB_SEL_TSS(%rbx)

    mov     %rsp, TSS + 4(%rbx)         /* rsp0 */
    movw    $TSS_BYTES, TSS + 102(%rbx) /* no port map */

    lea     GDT(%rbx), %rax
    push    %rax
    pushw   $GDT_BYTES - 1
    lgdt    (%rsp)
    lidt    idt_pointer(%rip)
    mov     $EBB_SEL_TSS, %eax
    ltr     %ax

    lea     STACK3_END - 8(%rbx), %rax /* as after a call */
    mov     $kernel_main, %ecx
    lea     STACK0_END(%rbx), %rsp
    pushq   $EBB_SEL_DATA3
    push    %rax
    pushq   $2 /* rflags: interrupts off */
    pushq   $EBB_SEL_CODE3
    push    %rcx
    iretq

/* From ring 3: eax = GATE_*, edi, rsi. Changes rdx and rax. */
gate:
    cmp     $GATE_OUT_BYTE, %eax
    ja      2f
    je      1f
    mov     %edi, %edx
    mov     %esi, %eax
    out     %eax, %dx
    iretq
1:  mov     %edi, %edx
    mov     %esi, %eax
    out     %al, %dx
    iretq
2:  mov     %rsi, %cr3
    iretq

/* Exceptions: vector and error code stand on the stack; ring 0 keeps nothing that must survive. */
    .balign 16
stubs:
    .set    vector, 0
    .rept   32
    .balign 16
    .if     (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21)
    pushq   $0
    .endif
    pushq   $vector
    jmp     trap
    .set    vector, vector + 1
    .endr

trap:
    mov     %rsp, %rbx
    and     $-4096, %rbx
    mov     CPU_NUMBER(%rbx), %edi
    inc     %edi
    shl     $12, %edi
    mov     $EBB_SHARED_GPA + EBB_TRAP_OFFSET, %eax
    add     %rax, %rdi
    .set    word, 0
    .rept   7
    mov     word(%rsp), %rax
    mov     %rax, word(%rdi)
    .set    word, word + 8
    .endr
    mov     %cr2, %rax
    mov     %rax, word(%rdi)
    mov     $EBB_PORT_EXIT, %edx
    mov     $EBB_EXIT_TRAP, %eax
    out     %eax, %dx
1:  hlt
    jmp     1b

    .balign 16
gdt:
    .quad   0
    .quad   0x00af9b000000ffff /* ring 0, 64-bit code, accessed */
    .quad   0x00cf93000000ffff /* ring 0, data */
    .quad   0x00cff3000000ffff /* ring 3, data */
    .quad   0x00affb000000ffff /* ring 3, 64-bit code */

idt_pointer:
    .word   idt_end - idt - 1
    .quad   ROM(idt)

/* Gates into one 64 KiB: the low half of an offset is its distance from rom_start. */
    .macro  idt_gate offset, type
    .word   \offset
    .word   EBB_SEL_CODE0
    .byte   0, \type
    .word   EBB_ROM_GPA >> 16
    .long   0, 0
    .endm

    .balign 16
idt:
    .set    vector, 0
    .rept   32
    .if     vector == GATE_VECTOR
    idt_gate (gate - rom_start), 0xee
    .else
    idt_gate (stubs - rom_start + vector * 16), 0x8e
    .endif
    .set    vector, vector + 1
    .endr
idt_end:

    .section .note.GNU-stack, "", @progbits
