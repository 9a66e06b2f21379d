/* libfx_churn.so, for rearm_test.cpp. */
  .text
  .globl churn_work
  .type churn_work, @function
churn_work:                 /* 5 x + 3 */
  pushq %rbx
  leaq (%rdi,%rdi,4), %rbx
  call 1f
  leaq 3(%rbx), %rax
  popq %rbx
  ret
1: nop
  ret
  .size churn_work, . - churn_work
  .globl churn_read
  .type churn_read, @function
churn_read:
  movl $1, %edx
  xorl %eax, %eax
  syscall
  ret
  .size churn_read, . - churn_read
  .section .note.GNU-stack, "", @progbits
