/* libfx_many.so: 100,000 functions, 16 bytes apart, that add their argument to 1. For transaction.cpp. */
  .altmacro
  .macro one number
  .type many_\number, @function
  .globl many_\number
many_\number:
  leaq 1(%rdi), %rax
  ret
  .size many_\number, . - many_\number
  .balign 16
  .endm
  .macro each number
  one %number
  .endm
  .text
  .balign 16
  .set at, 0
  .rept 100000
  each %at
  .set at, at + 1
  .endr
  .section .note.GNU-stack, "", @progbits
