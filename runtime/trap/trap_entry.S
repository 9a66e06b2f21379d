// The trap path's entry and exits, and the entry of every application signal handler.
//
// Context: signal handlers, in the application's own thread. No libc, no C++ unwinding, no locks.
//
//   int3 --kernel--> ubp_trap_entry --> ubp_trap_decide (C++)   whose trap is it, which counter
//                        |                  `--> no probepoint's: ubp_trap_foreign (C++) -> the application's disposition
//                        | incq counter                          <- the one instruction that counts the hit
//                        v
//                    ubp_trap_displace (C++)                     slot or emulation: fills the Continuation
//                        | one store, then registers
//                        v
//                    XRSTOR + IRETQ, or rt_sigreturn
//
//   signal --kernel--> ubp_signal_entry --> ubp_signal_prepare (C++: shows the handler the original context) --> handler
//                                            `--> if the interrupted hit is still to be displaced, the handler
//                                                 returns to ubp_resume_restorer instead of its own restorer
//
// The interruption contract. An application handler may interrupt any instruction here. The ranges below tell
// translate.h what is true at that point; the interrupted trap path is then abandoned, never resumed: the handler's
// frame is given the original context and the hit goes on from there. In all ranges the address of the interrupted
// hit's ucontext is in r15 (the C++ is compiled with -ffixed-r15), except at the five labelled single instructions.
//
//   uncounted  ubp_trap_entry .. ubp_trap_counted, section ubp_trap_uncounted       back to the int3: it traps again
//   pending    ubp_trap_counted .. ubp_trap_stored, section ubp_trap_pending      counted, displaced instruction not run
//   stored     ubp_trap_stored .. ubp_trap_end                              an emulated instruction has taken effect
//   resuming   ubp_resume_restorer .. ubp_resume_end, section ubp_trap_resuming    a handler has returned; r15 set up
//   entering   ubp_signal_entry .. ubp_signal_end, section ubp_trap_entering     another handler is about to start
#include "runtime/trap/layout.h"

    .section ubp_trap_asm, "ax", @progbits
    .globl ubp_trap_entry, ubp_trap_entry_r15, ubp_trap_counted, ubp_trap_stored, ubp_trap_iret, ubp_trap_end
    .globl ubp_resume_restorer, ubp_resume_restorer_r15, ubp_resume_end, ubp_signal_entry, ubp_signal_entry_r15
    .globl ubp_signal_end, ubp_trap_restorer
    .hidden ubp_trap_entry, ubp_trap_entry_r15, ubp_trap_counted, ubp_trap_stored, ubp_trap_iret, ubp_trap_end
    .hidden ubp_resume_restorer, ubp_resume_restorer_r15, ubp_resume_end, ubp_signal_entry, ubp_signal_entry_r15
    .hidden ubp_signal_end, ubp_trap_restorer
    .hidden ubp_trap_decide, ubp_trap_displace, ubp_trap_resume, ubp_trap_foreign, ubp_signal_prepare

// The kernel enters handlers with the interrupted AC (unaligned accesses fault) and NT (IRETQ faults): off.
.macro CLEAR_FLAGS
    testl $0x44000, UBP_UC_EFLAGS(%r15)
    jz 1f
    pushfq
    andl $~0x44000, (%rsp)
    popfq
1:
.endm

// Unwinding through a signal frame whose ucontext is at rsp: every register stands in it. The entry before the label
// belongs to it, because unwinders look up the return address minus one. Source: DWARF 5, 6.4.2; as libc's own restorer.
.macro CFI_REGISTER number, low, high=-1
    .if \high == -1
    .cfi_escape 0x10, \number, 2, 0x77, \low
    .else
    .cfi_escape 0x10, \number, 3, 0x77, \low, \high
    .endif
.endm
.macro CFI_SIGNAL_FRAME
    .cfi_startproc simple
    .cfi_signal_frame
    .cfi_escape 0x0f, 4, 0x77, 0xa0, 1, 0x06   // CFA = *(rsp + UBP_UC_RSP)
    CFI_REGISTER 8, 0x28
    CFI_REGISTER 9, 0x30
    CFI_REGISTER 10, 0x38
    CFI_REGISTER 11, 0xc0, 0
    CFI_REGISTER 12, 0xc8, 0
    CFI_REGISTER 13, 0xd0, 0
    CFI_REGISTER 14, 0xd8, 0
    CFI_REGISTER 15, 0xe0, 0
    CFI_REGISTER 5, 0xe8, 0                    // rdi
    CFI_REGISTER 4, 0xf0, 0                    // rsi
    CFI_REGISTER 6, 0xf8, 0                    // rbp
    CFI_REGISTER 3, 0x80, 1                    // rbx
    CFI_REGISTER 1, 0x88, 1                    // rdx
    CFI_REGISTER 0, 0x90, 1                    // rax
    CFI_REGISTER 2, 0x98, 1                    // rcx
    CFI_REGISTER 7, 0xa0, 1                    // rsp
    CFI_REGISTER 16, 0xa8, 1                   // rip
.endm

// void ubp_trap_entry(int signal [edi], siginfo_t* [rsi], ucontext_t* [rdx])
    .balign 16
    .quad 0                             // keeps the entry aligned behind the mark
    .quad UBP_ENTRY_MARK                // another copy of UBP in the process knows the handler by it (api/api.cpp)
    .type ubp_trap_entry, @function
ubp_trap_entry:                         // the ucontext is in rdx
    movq %rdx, %r15
ubp_trap_entry_r15:
    leaq UBP_STACK_OFFSET(%r15), %rsp
    CLEAR_FLAGS
    cmpl $UBP_SI_KERNEL, UBP_SIGINFO_CODE(%rsi)
    jne ubp_trap_not_ours               // kill(2), single step, ...: not an int3
    movq %r15, %rdi
    call ubp_trap_decide
    cmpq $1, %rax
    jb ubp_trap_not_ours
    je ubp_trap_retry
    incq (%rax)
ubp_trap_counted:
    movq %r15, %rdi
    call ubp_trap_displace
    movq UBP_CONT_OFFSET + UBP_CONT_STORE_ADDRESS(%r15), %rbp
    movq UBP_CONT_OFFSET + UBP_CONT_STORE_VALUE(%r15), %rcx
    movq %rcx, (%rbp)                   // the emulated push or call; may fault, and through rbp as #SS, as the original
ubp_trap_stored:
    cmpq $0, UBP_CONT_OFFSET + UBP_CONT_IN_USER_MODE(%r15)
    je ubp_trap_sigreturn

    // User-mode return. IRETQ loads RIP, RFLAGS and RSP at once, touches no application stack, and serialises, which
    // a slot written through its other view needs (SDM volume 3, self-modifying code).
    movq UBP_UC_FPSTATE(%r15), %rbx
    movl UBP_FP_SW_XFEATURES(%rbx), %eax
    movl UBP_FP_SW_XFEATURES + 4(%rbx), %edx
    xrstor64 (%rbx)
    movq UBP_CONT_OFFSET + UBP_CONT_RIP(%r15), %rax
    movq %rax, UBP_IRET_OFFSET(%r15)
    movzwl UBP_UC_CS(%r15), %eax
    movq %rax, UBP_IRET_OFFSET + 8(%r15)
    movq UBP_UC_EFLAGS(%r15), %rax
    movq %rax, UBP_IRET_OFFSET + 16(%r15)
    movq UBP_CONT_OFFSET + UBP_CONT_RSP(%r15), %rax
    movq %rax, UBP_IRET_OFFSET + 24(%r15)
    movzwl UBP_UC_SS(%r15), %eax
    movq %rax, UBP_IRET_OFFSET + 32(%r15)
    movq UBP_UC_R8(%r15), %r8
    movq UBP_UC_R9(%r15), %r9
    movq UBP_UC_R10(%r15), %r10
    movq UBP_UC_R11(%r15), %r11
    movq UBP_UC_R12(%r15), %r12
    movq UBP_UC_R13(%r15), %r13
    movq UBP_UC_R14(%r15), %r14
    movq UBP_UC_RDI(%r15), %rdi
    movq UBP_UC_RSI(%r15), %rsi
    movq UBP_UC_RBP(%r15), %rbp
    movq UBP_UC_RBX(%r15), %rbx
    movq UBP_UC_RDX(%r15), %rdx
    movq UBP_UC_RAX(%r15), %rax
    movq UBP_CONT_OFFSET + UBP_CONT_RCX(%r15), %rcx
    leaq UBP_IRET_OFFSET(%r15), %rsp
    movq UBP_UC_R15(%r15), %r15
ubp_trap_iret:                          // r15 is the application's; the ucontext is at rsp - UBP_IRET_OFFSET
    iretq

ubp_trap_sigreturn:
    movq UBP_CONT_OFFSET + UBP_CONT_RIP(%r15), %rax
    movq %rax, UBP_UC_RIP(%r15)
    movq UBP_CONT_OFFSET + UBP_CONT_RSP(%r15), %rax
    movq %rax, UBP_UC_RSP(%r15)
    movq UBP_CONT_OFFSET + UBP_CONT_RCX(%r15), %rax
    movq %rax, UBP_UC_RCX(%r15)
    testl $0x4000, UBP_UC_EFLAGS(%r15)
    jz 1f
    pushfq                              // rt_sigreturn keeps NT as it finds it
    orl $0x4000, (%rsp)
    popfq
1:  movq %r15, %rsp
    movl $15, %eax                      // rt_sigreturn finds the frame at rsp - 8
    syscall
ubp_trap_end:
    .size ubp_trap_entry, . - ubp_trap_entry

// The trap is not a probepoint's, or (retry) the thread shall hit it again: nothing was counted and nothing here is
// abandoned. Outside the ranges above.
ubp_trap_not_ours:
    leaq UBP_UC_SIGINFO(%r15), %rdi
    movq %r15, %rsi
    call ubp_trap_foreign               // -> the application's handler or 0, the frame (moved off UBP's stack)
    leaq -8(%rdx), %rsp
    movl UBP_UC_SIGINFO(%rdx), %edi
    leaq UBP_UC_SIGINFO(%rdx), %rsi
    testq %rax, %rax
    jz ubp_trap_return
    jmp *%rax
ubp_trap_retry:
    leaq -8(%rdx), %rsp
ubp_trap_return:
    ret                                 // to the restorer

// The restorer of the SIGTRAP handler. Unwinders and debuggers know a signal frame by these very bytes.
    .balign 16
    CFI_SIGNAL_FRAME
    nop
    .type ubp_trap_restorer, @function
ubp_trap_restorer:
    movq $15, %rax
    syscall
    .cfi_endproc
    .size ubp_trap_restorer, . - ubp_trap_restorer

// Application handlers return here (rsp = the frame's ucontext). Where there is no hit to go on with, and the mask that is to be
// restored says nothing of SIGTRAP, nor is there anything to change, it is libc's restorer: no stack is used.
    .balign 16
    CFI_SIGNAL_FRAME
    nop
    .type ubp_resume_restorer, @function
ubp_resume_restorer:                    // the ucontext is rsp
    movq %rsp, %r15
ubp_resume_restorer_r15:
    cmpq $0, UBP_UC_RESERVED(%r15)
    jne 2f
    testb $0x10, UBP_UC_MASK(%r15)
    jne 2f
    movq UBP_UC_RESERVED + 32(%r15), %rax   // %fs where it led to libc's storage; 0: the processor cannot be asked; 1: elsewhere
    testq %rax, %rax
    je 1f
    cmpq $1, %rax
    je 2f
    rdfsbase %rcx
    cmpq %rcx, %rax
    jne 2f
    jmp 4f
1:  cmpb $0, ubp_moves_fs(%rip)
    jne 2f
4:  movq _ZN3ubp4trap8t_threadE@gottpoff(%rip), %rax
    movb $0, %fs:UBP_THREAD_FAULTS(%rax)    // the mask changes: Faults::kUnknown
    cmpb $0, %fs:(%rax)                 // AppTrap::is_blocked
    je 3f
2:  leaq UBP_STACK_OFFSET(%r15), %rsp
    CLEAR_FLAGS
    movq %r15, %rdi
    call ubp_trap_resume                // 1: the hit goes on; 0: the handler has moved the context elsewhere
    testl %eax, %eax
    jnz ubp_trap_counted
    movq %r15, %rsp
3:  movl $15, %eax
    syscall
ubp_resume_end:
    .cfi_endproc
    .size ubp_resume_restorer, . - ubp_resume_restorer

// What the kernel is given in place of every handler the application installs.
    .balign 16
    .type ubp_signal_entry, @function
ubp_signal_entry:                       // the ucontext is in rdx
    movq %rdx, %r15
ubp_signal_entry_r15:
    CLEAR_FLAGS
    movq %rdx, %rsi
    leaq UBP_UC_SIGINFO(%rdx), %rdi
    leaq UBP_STACK_OFFSET(%r15), %rsp
    call ubp_signal_prepare             // (siginfo, ucontext) -> the application's handler or 0, the frame
    movq %rdx, %r15                     // moved: from here on UBP's stack may be used again
    leaq -8(%r15), %rsp
    movl UBP_UC_SIGINFO(%r15), %edi
    leaq UBP_UC_SIGINFO(%r15), %rsi
    testq %rax, %rax
    jz ubp_trap_return
    jmp *%rax
ubp_signal_end:
    .size ubp_signal_entry, . - ubp_signal_entry

// A probepoint of the runtime's own, always armed: what one hit costs is measured on it (arm/process_memory.cpp).
    .globl ubp_calibration_call, ubp_calibration_point
    .hidden ubp_calibration_call, ubp_calibration_point
    .balign 16
    .type ubp_calibration_call, @function
ubp_calibration_call:
ubp_calibration_point:
    int3                                // stands for a nop
    ret
    .size ubp_calibration_call, . - ubp_calibration_call

// void ubp_trap_deliver(std::uint64_t, TaskState* [rsi]): the consumers of a hit have run, and a signal was put off meanwhile. Traps, for
// ubp_trap_foreign; the hit goes on when the handler has returned. Returns where there is no handler.
    .globl ubp_trap_deliver
    .hidden ubp_trap_deliver
    .section ubp_trap_pending, "ax", @progbits
    .balign 16
    .type ubp_trap_deliver, @function
ubp_trap_deliver:
    int3
    ret
    .size ubp_trap_deliver, . - ubp_trap_deliver

    .section .note.GNU-stack, "", @progbits
