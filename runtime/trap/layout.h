// Offsets that the assembly of the trap path shares with its C++. Included by both; trap_state.h checks them.
//
// The kernel's signal frame (arch/x86/include/asm/sigframe.h, uapi/asm/ucontext.h, uapi/asm/sigcontext.h):
//
//   frame ->  | pretcode (8)       |  return address: the restorer         <- rsp at handler entry
//   uc ---->  | ucontext (304)     |  flags, link, altstack, registers, mask
//             | siginfo (128)      |
//             | ... XSAVE image    |  fpstate points here
//
// UBP's own words lie below the frame, at fixed distances from uc, so that whoever interrupts the trap path finds them:
//
//   uc-8    pretcode
//   uc-96   Continuation (88): within the 128 bytes below rsp = uc, which the kernel leaves alone (red zone), so that
//           it
//           survives a signal just before rt_sigreturn
//   uc-184  the five words IRETQ loads
//   uc-192  stack top for the C++ part (16-byte aligned)
#ifndef UBP_RUNTIME_TRAP_LAYOUT_H
#define UBP_RUNTIME_TRAP_LAYOUT_H

#define UBP_UC_STACK_FLAGS 24
#define UBP_UC_R8 40
#define UBP_UC_R9 48
#define UBP_UC_R10 56
#define UBP_UC_R11 64
#define UBP_UC_R12 72
#define UBP_UC_R13 80
#define UBP_UC_R14 88
#define UBP_UC_R15 96
#define UBP_UC_RDI 104
#define UBP_UC_RSI 112
#define UBP_UC_RBP 120
#define UBP_UC_RBX 128
#define UBP_UC_RDX 136
#define UBP_UC_RAX 144
#define UBP_UC_RCX 152
#define UBP_UC_RSP 160
#define UBP_UC_RIP 168
#define UBP_UC_EFLAGS 176
#define UBP_UC_CS 184
#define UBP_UC_SS 190
#define UBP_UC_FPSTATE 224
#define UBP_UC_RESERVED 232
#define UBP_UC_MASK 296
#define UBP_UC_SIGINFO 304

#define UBP_FP_SW_XFEATURES 472 /* sw_reserved.xfeatures in the legacy FXSAVE area: 464 + 8 */

#define UBP_SIGINFO_CODE 8
#define UBP_SI_KERNEL 0x80

#define UBP_CONT_OFFSET (-112)
#define UBP_CONT_RIP 8
#define UBP_CONT_RSP 16
#define UBP_CONT_RCX 24
#define UBP_CONT_STORE_ADDRESS 32
#define UBP_CONT_STORE_VALUE 40
#define UBP_CONT_IN_USER_MODE 48

/* Thread::faults (task_state.h). */
#define UBP_THREAD_FAULTS 144

/* The eight bytes before every UBP's SIGTRAP handler. */
#define UBP_ENTRY_MARK 0x5254454942505542

#define UBP_IRET_OFFSET (-184)
#define UBP_STACK_OFFSET (-192)

/* What jump/floating.S writes of a DetourSave (runtime/table/detour.h). */
#define UBP_SAVE_MXCSR 152
#define UBP_SAVE_IN_USE 156
#define UBP_SAVE_MASKS 256
#define UBP_SAVE_VECTORS 320
#define UBP_SAVE_IMAGE 2368

#endif
