/* libfx_optimise.so, for optimise_test.cpp: functions whose first five bytes lie across a cache line. */
  .text

/* wide(x): 7 x + 3. One instruction of eight bytes. */
  .balign 64
  .skip 62, 0x90
  .globl wide
  .type wide, @function
wide:
  leaq 0(,%rdi,8), %rax     /* 8 bytes */
  subq %rdi, %rax
  addq $3, %rax
  ret
  .size wide, . - wide

/* narrow(x): x + 7 in 32 bits. Boundaries at 2 and 4, where it can be entered with x in eax. */
  .balign 64
  .skip 61, 0x90
  .globl narrow
  .type narrow, @function
narrow:
  movl %edi, %eax           /* 2 bytes */
  addl %ecx, %ecx           /* 2 bytes */
  addl $7, %eax             /* 3 bytes */
  ret
  .size narrow, . - narrow

/* enter(where, x): calls narrow's middle, with x in eax. */
  .globl enter
  .type enter, @function
enter:
  subq $8, %rsp
  movl %esi, %eax
  call *%rdi
  addq $8, %rsp
  ret
  .size enter, . - enter

/* backwards(): sets the direction flag, meets a probepoint at +1, and returns RFLAGS as they are then; +6 is entered by nobody. */
  .balign 64
  .globl backwards
  .type backwards, @function
backwards:
  std
  leaq 16(%rdi,%rsi), %rdx  /* 5 bytes: at +1 */
  pushfq
  popq %rax
  cld
  ret
  .size backwards, . - backwards

/* What the control jumps to: narrow again, elsewhere. */
  .globl narrow_copy
  .type narrow_copy, @function
narrow_copy:
  movl %edi, %eax
  addl %ecx, %ecx
  addl $7, %eax
  ret
  .size narrow_copy, . - narrow_copy
  .section .note.GNU-stack, "", @progbits
