// The way into one instruction under test and back: a full register, flag and XSAVE state goes in by IRETQ
// (which serialises: freshly written code may run), and comes back through a landing pad or a signal.
//
//   insn_diff_enter --IRETQ--> instruction --> `jmp *0(%rip)` behind it or at its target --> a pad --.
//                                  `-- fault --> kernel --> insn_diff_handler (alternate stack) -----+--> C++
//
// No pad uses a register or the stack before it is saved. FS and GS base are restored before C++ runs.
#include "layout.h"

    .text
    .globl insn_diff_enter, insn_diff_guarded, insn_diff_iret, insn_diff_pad_next, insn_diff_pad_target
    .globl insn_diff_handler
    .hidden insn_diff_enter, insn_diff_guarded, insn_diff_iret, insn_diff_pad_next, insn_diff_pad_target
    .hidden insn_diff_handler, insn_diff_context

#define CTX(field) field + insn_diff_context(%rip)

    .macro leave_home                   // saves what C++ relies on; loads the test's bases
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, CTX(DIFF_HOME_RSP)
    rdfsbase %rax
    movq %rax, CTX(DIFF_HOME_FS)
    rdgsbase %rax
    movq %rax, CTX(DIFF_HOME_GS)
    movq $1, CTX(DIFF_INSIDE)
    movq CTX(DIFF_FS_IN), %rax
    wrfsbase %rax
    movq CTX(DIFF_GS_IN), %rax
    wrgsbase %rax
    .endm

// int insn_diff_enter(): 0 landed on a pad, 1 a signal came.
    .balign 16
insn_diff_enter:
    leave_home
    movl $0xfff9ffff, %eax  # all but the tiles
    movl $-1, %edx
    xrstor64 CTX(DIFF_XSAVE_IN)
    leaq CTX(DIFF_GPR_IN), %rsp
    popq %rax
    popq %rcx
    popq %rdx
    popq %rbx
    leaq 8(%rsp), %rsp
    popq %rbp
    popq %rsi
    popq %rdi
    popq %r8
    popq %r9
    popq %r10
    popq %r11
    popq %r12
    popq %r13
    popq %r14
    popq %r15
insn_diff_iret:
    iretq

// int insn_diff_guarded(void (*f)(), bool alignment_check): calls f under the test's FS and GS base.
// 1: a signal came.
    .balign 16
insn_diff_guarded:
    leave_home
    testl %esi, %esi
    jz 1f
    pushfq
    orq $0x40000, (%rsp)
    popfq
1:  subq $8, %rsp
    call *%rdi
    addq $8, %rsp
    pushq $2
    popfq
    movq CTX(DIFF_HOME_FS), %rax
    wrfsbase %rax
    movq CTX(DIFF_HOME_GS), %rax
    wrgsbase %rax
    movq $0, CTX(DIFF_INSIDE)
    xorl %eax, %eax
    jmp home

    .balign 16
insn_diff_pad_target:
    movq $1, CTX(DIFF_WHERE)
    jmp pad
    .balign 16
insn_diff_pad_next:
    movq $0, CTX(DIFF_WHERE)
pad:
    movq %rax, 0 + CTX(DIFF_GPR_OUT)
    movq %rcx, 8 + CTX(DIFF_GPR_OUT)
    movq %rdx, 16 + CTX(DIFF_GPR_OUT)
    movq %rbx, 24 + CTX(DIFF_GPR_OUT)
    movq %rsp, 32 + CTX(DIFF_GPR_OUT)
    movq %rbp, 40 + CTX(DIFF_GPR_OUT)
    movq %rsi, 48 + CTX(DIFF_GPR_OUT)
    movq %rdi, 56 + CTX(DIFF_GPR_OUT)
    movq %r8, 64 + CTX(DIFF_GPR_OUT)
    movq %r9, 72 + CTX(DIFF_GPR_OUT)
    movq %r10, 80 + CTX(DIFF_GPR_OUT)
    movq %r11, 88 + CTX(DIFF_GPR_OUT)
    movq %r12, 96 + CTX(DIFF_GPR_OUT)
    movq %r13, 104 + CTX(DIFF_GPR_OUT)
    movq %r14, 112 + CTX(DIFF_GPR_OUT)
    movq %r15, 120 + CTX(DIFF_GPR_OUT)
    movq CTX(DIFF_HOME_RSP), %rsp
    pushfq
    popq CTX(DIFF_FLAGS_OUT)
    pushq $2
    popfq
    movl $0xfff9ffff, %eax
    movl $-1, %edx
    xsave64 CTX(DIFF_XSAVE_OUT)
    fninit
    vzeroall
    pushq $0x1f80
    ldmxcsr (%rsp)
    addq $8, %rsp
    xorl %ecx, %ecx
    jmp finish

// void insn_diff_handler(int signal, siginfo_t*, ucontext_t*), on the alternate stack. The frame stays.
    .balign 16
insn_diff_handler:
    pushq $2
    popfq
    cmpq $0, CTX(DIFF_INSIDE)
    je insn_diff_stray
    movq $2, CTX(DIFF_WHERE)
    movq %rdi, CTX(DIFF_SIGNAL)
    movq %rsi, CTX(DIFF_INFO)
    movq %rdx, CTX(DIFF_UCONTEXT)
    movq CTX(DIFF_HOME_RSP), %rsp
    movl $1, %ecx
finish:                                 // ecx: what to return
    xorl %edx, %edx
    xorl %eax, %eax
    movw %ds, %ax
    movq %rax, 0 + CTX(DIFF_SELECTORS_OUT)
    testl %eax, %eax
    jz 1f
    movl %edx, %ds
1:  movw %es, %ax
    movq %rax, 8 + CTX(DIFF_SELECTORS_OUT)
    testl %eax, %eax
    jz 1f
    movl %edx, %es
1:  rdfsbase %r8
    movq %r8, CTX(DIFF_FS_OUT)
    rdgsbase %r8
    movq %r8, CTX(DIFF_GS_OUT)
    movw %fs, %ax
    movq %rax, 16 + CTX(DIFF_SELECTORS_OUT)
    testl %eax, %eax
    jz 1f
    movl %edx, %fs
1:  movw %gs, %ax
    movq %rax, 24 + CTX(DIFF_SELECTORS_OUT)
    testl %eax, %eax
    jz 1f
    movl %edx, %gs
1:  movq CTX(DIFF_HOME_FS), %rax
    wrfsbase %rax
    movq CTX(DIFF_HOME_GS), %rax
    wrgsbase %rax
    movq $0, CTX(DIFF_INSIDE)
    movl %ecx, %eax
home:
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret

// A fault of the harness itself: die of it.
insn_diff_stray:
    movl $1, %eax
    movl $2, %edi
    leaq stray_text(%rip), %rsi
    movl $stray_text_end - stray_text, %edx
    syscall
    movl $231, %eax
    movl $99, %edi
    syscall

    .section .rodata
stray_text:
    .ascii "insn_diff: the harness itself faulted\n"
stray_text_end:
    .section .note.GNU-stack, "", @progbits
