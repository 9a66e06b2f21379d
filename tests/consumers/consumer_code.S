/* For consumer_code_test.cpp: consumers whose code keeps to general registers, and others. */
  .text
.macro CONSUMER name
  .balign 16
  .globl \name
  .type \name, @function
\name:
.endm

CONSUMER general_leaf
  endbr64
  pushq %rbx
  movq (%rsi), %rbx
  testq %rbx, %rbx
  je 1f
  bswapq %rbx
  cmoveq %rdx, %rbx
  lock xaddq %rbx, (%rsi)
1: popq %rbx
  ret

CONSUMER general_calls                 /* directly, in a loop, and through a word that is read-only */
  subq $8, %rsp
  movl $3, %ecx
1: call general_leaf
  loop 1b
  call *constant_general(%rip)
  addq $8, %rsp
  jmp *constant_general(%rip)

CONSUMER hidden_vector                 /* behind a branch that is never taken */
  testl %eax, %eax
  js 1f
  ret
1: movaps %xmm0, %xmm1
  ret

CONSUMER calls_vector
  subq $8, %rsp
  call hidden_vector
  addq $8, %rsp
  ret

CONSUMER jumps_to_vector
  jmp hidden_vector

CONSUMER constant_vector
  jmp *constant_hidden(%rip)

CONSUMER writable_word
  jmp *writable(%rip)

CONSUMER by_register
  leaq general_leaf(%rip), %rax
  jmp *%rax

CONSUMER enters_kernel
  movl $39, %eax
  syscall
  ret

CONSUMER uses_x87
  fld1
  fstp %st(0)
  ret

CONSUMER uses_mmx
  emms
  ret

CONSUMER uses_mask
  kmovw %eax, %k1
  ret

CONSUMER sets_mxcsr
  ldmxcsr (%rsi)
  ret

CONSUMER ends_nowhere
  movl $1, %eax
  .byte 0x06                           /* no instruction */

  .section .data.rel.ro, "aw"
  .balign 8
constant_general: .quad general_leaf
constant_hidden: .quad hidden_vector
  .data
  .balign 8
writable: .quad general_leaf
  .section .note.GNU-stack, "", @progbits
