// What a C function may change besides the general registers, saved and put back around a detour's consumers: vector and mask registers
// by plain moves, as much of them as is in use; x87 and MMX, and what else there is, only when they are in use.
//
// XGETBV(1) says what is: XINUSE. A component that is not is in its .Linitial state, and what was not before the consumers and is
// behind them is put there again: a load of zeros would not do, which a processor takes for use. What is in use costs SSE code, which waits for upper halves,
// and the kernel, which saves it at every switch of tasks.
//
// Context: called by detours, on UBP's stack, while the task is marked: signals are put off (consume.h). rdi: the DetourSave; rax, rcx
// and rdx are lost. Sources: SDM volume 1, 13.5 to 13.8 and 14.9; psABI 3.2.1 (upper halves, x87).
#include "runtime/trap/layout.h"

    .set kX87, 0x1
    .set kYmm, 0x4                  // upper halves of ymm0 to ymm15
    .set kMasks, 0x20
    .set kZmm, 0x40                 // of zmm0 to zmm15
    .set kHigh, 0x80                // zmm16 to zmm31
    .set kX87Default, 0x37f
    .set kMxcsrDefault, 0x1f80

    .section .text.ubp_floating, "ax", @progbits
    .globl ubp_save_floating, ubp_restore_floating, ubp_floating_components, ubp_floating_others
    .hidden ubp_save_floating, ubp_restore_floating, ubp_floating_components, ubp_floating_others

.macro LOW move, register, bytes, restores
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .if \restores
    \move UBP_SAVE_VECTORS + \number * \bytes(%rdi), %\register\number
    .else
    \move %\register\number, UBP_SAVE_VECTORS + \number * \bytes(%rdi)
    .endif
    .endr
.endm
.macro HIGH restores
    .irp number, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    .if \restores
    vmovaps UBP_SAVE_VECTORS + \number * 64(%rdi), %zmm\number
    .else
    vmovaps %zmm\number, UBP_SAVE_VECTORS + \number * 64(%rdi)
    .endif
    .endr
.endm
.macro MASKS restores
    .irp number, 0, 1, 2, 3, 4, 5, 6, 7
    .if \restores
    kmovq UBP_SAVE_MASKS + \number * 8(%rdi), %k\number
    .else
    kmovq %k\number, UBP_SAVE_MASKS + \number * 8(%rdi)
    .endif
    .endr
.endm

// Saves, and leaves the state that a C function may expect: no upper half in use, MXCSR and x87 as the kernel sets them for handlers.
    .type ubp_save_floating, @function
    .balign 64
ubp_save_floating:
    .cfi_startproc
    movl $1, %ecx
    xgetbv
    movl %eax, UBP_SAVE_IN_USE(%rdi)
    testl ubp_floating_others(%rip), %eax
    jnz 5f
0:  testb $kYmm | kZmm, %al
    jnz 3f
    LOW movaps, xmm, 16, 0
1:  testb $kHigh, %al
    jz 2f
    HIGH 0
2:  testb $kMasks, %al
    jz 2f
    MASKS 0
2:  stmxcsr UBP_SAVE_MXCSR(%rdi)
    movl UBP_SAVE_MXCSR(%rdi), %eax
    andl $~0x3f, %eax               // exceptions that were met do not matter
    cmpl $kMxcsrDefault, %eax
    jne 2f
    ret
2:  ldmxcsr .Linitial + 24(%rip)
    ret

3:  testb $kZmm, %al
    jnz 4f
    LOW vmovaps, ymm, 32, 0
    vzeroupper
    jmp 1b
4:  LOW vmovaps, zmm, 64, 0
    vzeroupper
    jmp 1b

5:  testb $kX87, %al
    jz 6f
    fxsave64 UBP_SAVE_IMAGE(%rdi)
    cmpw $kX87Default, UBP_SAVE_IMAGE(%rdi)
    jne 7f
    cmpb $0, UBP_SAVE_IMAGE + 4(%rdi)  // the tags: no register holds anything
    jne 7f
6:  movl ubp_floating_others(%rip), %edx
    andl %eax, %edx
    andl $~kX87, %edx
    jz 0b
    movl %eax, %ecx
    movl %edx, %eax
    xorl %edx, %edx
    xsave64 UBP_SAVE_IMAGE(%rdi)    // it leaves alone what FXSAVE wrote
    movl %ecx, %eax
    jmp 0b
7:  fninit
    jmp 6b
    .cfi_endproc
    .size ubp_save_floating, . - ubp_save_floating

    .type ubp_restore_floating, @function
    .balign 64
ubp_restore_floating:
    .cfi_startproc
    movl $1, %ecx
    xgetbv
    movl UBP_SAVE_IN_USE(%rdi), %ecx
    movl %ecx, %edx
    notl %edx
    andl ubp_floating_components(%rip), %edx
    andl %edx, %eax                 // in use now, and not before
    jnz 5f
0:  testl ubp_floating_others(%rip), %ecx
    jnz 6f
1:  testb $kYmm | kZmm, %cl
    jnz 3f
    LOW movaps, xmm, 16, 1
2:  testb $kHigh, %cl
    jz 8f
    HIGH 1
8:  testb $kMasks, %cl
    jz 8f
    MASKS 1
8:  ldmxcsr UBP_SAVE_MXCSR(%rdi)
    ret

3:  testb $kZmm, %cl
    jnz 4f
    LOW vmovaps, ymm, 32, 1
    jmp 2b
4:  LOW vmovaps, zmm, 64, 1
    jmp 2b

5:  xorl %edx, %edx
    xrstor64 .Linitial(%rip)
    jmp 0b
6:  testb $kX87, %cl
    jz 7f
    fxrstor64 UBP_SAVE_IMAGE(%rdi)
7:  movl ubp_floating_others(%rip), %eax
    andl %ecx, %eax
    andl $~kX87, %eax
    jz 1b
    xorl %edx, %edx
    xrstor64 UBP_SAVE_IMAGE(%rdi)
    jmp 1b
    .cfi_endproc
    .size ubp_restore_floating, . - ubp_restore_floating

// An XSAVE image of nothing: each component that is asked for gets its .Linitial state.
    .section .rodata
    .balign 64
.Linitial:
    .long kX87Default
    .zero 20
    .long kMxcsrDefault
    .zero 576 - 28

// What is kept here of the components: all, and those that moves do not do.
    .section .bss
    .balign 4
ubp_floating_components:
    .zero 4
ubp_floating_others:
    .zero 4
    .section .note.GNU-stack, "", @progbits
