/* libfx_destroy.so, for destroy_test.cpp: two functions that keep every register, the way into one with all of them set and back with all of
 * them seen, and a consumer that changes whatever it may. The offsets are those of Visit and Destruction there. */
  .set kSet, 0
  .set kGot, 8
  .set kComponents, 16
  .set kFlags, 24
  .set kHasInUse, 32
  .set kFunction, 40
  .set kBefore, 48
  .set kAfter, 52
  .set kIn, 56
  .set kOut, 56 + 128

  .text
  .irp name, destroyed, control_destroyed
  .globl \name
  .type \name, @function
\name:
  .byte 0x0f, 0x1f, 0x44, 0, 0              /* nop */
  .byte 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0     /* nop: at +5 */
  .rept 16
  nop
  .endr
  ret
  .size \name, . - \name
  .endr

/* visit(Visit*) */
  .globl visit
  .type visit, @function
visit:
  .irp register, rbx, rbp, r12, r13, r14, r15
  pushq %\register
  .endr
  movq %rdi, visited(%rip)
  movq kFunction(%rdi), %rax
  movq %rax, function(%rip)
  movq %rdi, %rbx
  movl kComponents(%rbx), %eax
  movl kComponents + 4(%rbx), %edx
  movq kSet(%rbx), %rcx
  xrstor64 (%rcx)
  cmpq $0, kHasInUse(%rbx)
  je 1f
  movl $1, %ecx
  xgetbv
  movl %eax, kBefore(%rbx)
1:
  movq %rbx, %rax
  .set at, 8
  .irp register, rcx, rdx, rbx
  movq kIn + at(%rax), %\register
  .set at, at + 8
  .endr
  .set at, 40
  .irp register, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
  movq kIn + at(%rax), %\register
  .set at, at + 8
  .endr
  pushq kFlags(%rax)
  movq kIn(%rax), %rax
  popfq
  call *function(%rip)
  pushfq
  pushq %rax
  movq visited(%rip), %rax
  popq kOut(%rax)
  popq kFlags(%rax)
  cld
  .set at, 8
  .irp register, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
  movq %\register, kOut + at(%rax)
  .set at, at + 8
  .endr
  movq %rax, %rbx
  cmpq $0, kHasInUse(%rbx)
  je 1f
  movl $1, %ecx
  xgetbv
  movl %eax, kAfter(%rbx)
1:
  movl kComponents(%rbx), %eax
  movl kComponents + 4(%rbx), %edx
  movq kGot(%rbx), %rcx
  xsave64 (%rcx)
  .irp register, r15, r14, r13, r12, rbp, rbx
  popq %\register
  .endr
  ret
  .size visit, . - visit

/* destroy(context, Destruction*): the registers that calls need not keep, the flags, and the components it is told. */
  .globl destroy
  .type destroy, @function
destroy:
  incq 16(%rsi)
  movl 8(%rsi), %eax
  movl 12(%rsi), %edx
  movl %eax, %ecx
  orl %edx, %ecx
  jz 1f
  movq (%rsi), %rcx
  xrstor64 (%rcx)
1:
  .irp register, rax, rcx, rdx, rsi, rdi, r8, r9, r10, r11
  movq $-0x123456, %\register
  .endr
  movb $0x7f, %al
  addb $0x7f, %al                           /* overflow, sign, adjust; neither carry nor zero */
  ret
  .size destroy, . - destroy

  .bss
  .balign 8
visited:
  .zero 8
function:
  .zero 8
  .section .note.GNU-stack, "", @progbits
