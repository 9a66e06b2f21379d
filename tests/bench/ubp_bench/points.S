/* What ubp-bench probes: functions whose first instruction is of one class, and 4096 alike for cycling. */
  .text
.macro FUNCTION name, insn:vararg
  .balign 64
  .globl \name
  .type \name, @function
\name:
  \insn
  ret
  .size \name, . - \name
.endm

FUNCTION bench_emulated, nop
FUNCTION bench_nop5, .byte 0x0f, 0x1f, 0x44, 0, 0   /* nopl 0(%rax,%rax,1) would be assembled to 4 bytes */
FUNCTION bench_slot, lea 1(%rdi), %rax

/* The jump tier: a function too long to be executed in its detour to the end, so that this jumps back. */
.macro LONG name, insn:vararg
  .balign 64
  .globl \name
  .type \name, @function
\name:
  \insn
.L\name\()_behind:
  .rept 16
  nop
  .endr
  ret
  .size \name, . - \name
.endm

LONG bench_long, .byte 0x0f, 0x1f, 0x44, 0, 0
LONG bench_floor, {disp32} jmp .Ldetour_bench_floor
LONG bench_floor_far, {disp32} jmp .Ldetour_bench_floor_far
LONG bench_floor_call, {disp32} jmp .Ldetour_bench_floor_call

/* The floor of a consumer: counted, and a C function called, with what it may change saved on the stack. */
  .balign 64
.Ldetour_bench_floor_call:
  leaq -136(%rsp), %rsp
  pushq %rax
  lahf
  seto %al
  pushq %rax
  .irp register, rcx, rdx, rsi, rdi, r8, r9, r10, r11
  pushq %\register
  .endr
  movq %fs:bench_counters@tpoff, %rcx
  incq 1024(%rcx)
  call bench_consumer
  .irp register, r11, r10, r9, r8, rdi, rsi, rdx, rcx
  popq %\register
  .endr
  popq %rax
  addb $0x7f, %al
  sahf
  popq %rax
  leaq 136(%rsp), %rsp
  .byte 0x0f, 0x1f, 0x44, 0, 0
  {disp32} jmp .Lbench_floor_call_behind
  .globl bench_consumer
  .type bench_consumer, @function
bench_consumer:
  ret
  .size bench_consumer, . - bench_consumer

/* The floor of the jump tier: bench_long with the least detour that counts for its thread, written by hand. */
.macro DETOUR name
  .balign 64
.Ldetour_\name:
  movq %rcx, %fs:bench_rcx@tpoff
  movq %fs:bench_counters@tpoff, %rcx
  movq %rax, %fs:bench_rax@tpoff
  movq 1024(%rcx), %rax
  leaq 1(%rax), %rax
  movq %rax, 1024(%rcx)
  movq %fs:bench_rax@tpoff, %rax
  movq %fs:bench_rcx@tpoff, %rcx
  .byte 0x0f, 0x1f, 0x44, 0, 0
  {disp32} jmp .L\name\()_behind
.endm

DETOUR bench_floor

  .section .tbss, "awT", @nobits
  .balign 8
  .globl bench_counters
  .type bench_counters, @object
  .size bench_counters, 8
bench_counters:
  .zero 8
bench_rcx:
  .zero 8
bench_rax:
  .zero 8
  .text

  .balign 64
  .globl bench_syscall
  .type bench_syscall, @function
bench_syscall:                      /* its probe is on the system call itself: bench_syscall+0x5 */
  movl $39, %eax
  syscall
  ret
  .size bench_syscall, . - bench_syscall

  .altmacro
.macro POINT number
  .globl point_\number
  .type point_\number, @function
point_\number:
  lea \number(%rdi), %rax
  ret
  .size point_\number, . - point_\number
  .balign 16
  .pushsection .data.rel.ro, "aw"
  .quad point_\number
  .popsection
.endm
  .section .data.rel.ro, "aw"
  .balign 8
  .globl bench_points
bench_points:
  .text
  .balign 64
  .set i, 0
  .rept 4096
    POINT %i
    .set i, i + 1
  .endr

DETOUR bench_floor_far              /* far from its function, as all of UBP's: that costs */

/* The floor: a SIGTRAP handler that does nothing, and leaves in user mode as the trap path does. r15 of the frame: 96. */
  .globl bench_empty_fast
  .type bench_empty_fast, @function
bench_empty_fast:
  movq %rdx, %r15
  leaq -192(%r15), %rsp
  movq 224(%r15), %rbx              /* fpstate; its xfeatures: 464 + 8 */
  movl 472(%rbx), %eax
  movl 476(%rbx), %edx
  xrstor64 (%rbx)
  movq 168(%r15), %rax
  movq %rax, -184(%r15)
  movzwl 184(%r15), %eax
  movq %rax, -176(%r15)
  movq 176(%r15), %rax
  movq %rax, -168(%r15)
  movq 160(%r15), %rax
  movq %rax, -160(%r15)
  movzwl 190(%r15), %eax
  movq %rax, -152(%r15)
  movq 40(%r15), %r8
  movq 48(%r15), %r9
  movq 56(%r15), %r10
  movq 64(%r15), %r11
  movq 72(%r15), %r12
  movq 80(%r15), %r13
  movq 88(%r15), %r14
  movq 104(%r15), %rdi
  movq 112(%r15), %rsi
  movq 120(%r15), %rbp
  movq 128(%r15), %rbx
  movq 136(%r15), %rdx
  movq 144(%r15), %rax
  movq 152(%r15), %rcx
  leaq -184(%r15), %rsp
  movq 96(%r15), %r15
  iretq
  .size bench_empty_fast, . - bench_empty_fast
  .section .note.GNU-stack, "", @progbits
