/* 2048 functions that look like what compilers make, 16-byte aligned, and code that calls them in turn. Each adds its number to its
 * argument. Named by the least group they are called in: turn_1_2047, turn_8_2046 ... turn_8_2040, and so on down. */
  .set kTurns, 2048

  .section .data.rel.ro, "aw"
  .balign 8
  .globl bench_turns
bench_turns:                        /* address, and bytes of the first whole instructions that a jump needs */
  .section .text.bench_turns, "ax", @progbits
  .balign 4096

  .altmacro
.macro BEGIN group, number
  .balign 16
  .globl turn_\group\()_\number
  .type turn_\group\()_\number, @function
turn_\group\()_\number:
.endm
.macro END group, number
  .size turn_\group\()_\number, . - turn_\group\()_\number
  .pushsection .data.rel.ro
  .quad turn_\group\()_\number, .Lturn_kept_\number - turn_\group\()_\number
  .popsection
.endm

.macro FRAME group, number          /* not optimised */
  BEGIN \group, \number
  pushq %rbp
  movq %rsp, %rbp
  subq $16, %rsp
.Lturn_kept_\number:
  movq %rdi, -8(%rbp)
  movl $\number, -12(%rbp)
  cmpq $-1, -8(%rbp)
  jne .Lturn_else_\number
  movl $\number, %eax
  jmp .Lturn_end_\number
.Lturn_else_\number:
  movl -12(%rbp), %eax
  cltq
  addq %rdi, %rax
.Lturn_end_\number:
  leave
  ret
  END \group, \number
.endm
/* Optimised, with variables in memory; not where FRAME has its own: a processor that forwards stores by their stack slots would be
 * wrong at every other function. */
.macro LOCALS group, number
  BEGIN \group, \number
  subq $40, %rsp
  movq %rdi, 8(%rsp)
.Lturn_kept_\number:
  leaq \number(%rdi), %rax
  testq %rax, %rax
  js .Lturn_else_\number
  addq $40, %rsp
  ret
.Lturn_else_\number:
  xorl %eax, %eax
  addq $40, %rsp
  ret
  END \group, \number
.endm
.macro LEAF group, number           /* optimised, without a frame */
  BEGIN \group, \number
  movq %rdi, %rax
  testq %rdi, %rdi
.Lturn_kept_\number:
  je .Lturn_else_\number
  addq $\number, %rax
  ret
.Lturn_else_\number:
  movl $\number, %eax
  ret
  END \group, \number
.endm
.macro BRANCH group, number         /* compiled with -fcf-protection */
  BEGIN \group, \number
  endbr64
  pushq %rbx
.Lturn_kept_\number:
  movq %rdi, %rbx
  cmpq $-1, %rdi
  je .Lturn_else_\number
  leaq \number(%rbx), %rax
  popq %rbx
  ret
.Lturn_else_\number:
  xorl %eax, %eax
  popq %rbx
  ret
  END \group, \number
.endm

.macro IN_TURN group, number
  call turn_\group\()_\number
  movq %rax, %rdi
.endm

/* One of the kinds, or the call, for each number from `i` up to `end`. */
.macro EACH what, group, end
  .rept \end - i
    \what \group, %i
    .set i, i + 1
  .endr
.endm
.macro ANY group, number
  .if \number % 4 == 0
    FRAME \group, \number
  .elseif \number % 4 == 1
    LOCALS \group, \number
  .elseif \number % 4 == 2
    LEAF \group, \number
  .else
    BRANCH \group, \number
  .endif
.endm
.macro GROUPS what
  .set i, 0
  EACH \what, 2048, 1536
  EACH \what, 512, 1984
  EACH \what, 64, 2040
  EACH \what, 8, 2047
  EACH \what, 1, 2048
.endm

  GROUPS ANY

/* Calls them in turn, each with what the one before returned: entered at bench_turns_calls + 8 * the number of the first. */
  .balign 64
  .globl bench_turns_calls
  .type bench_turns_calls, @function
bench_turns_calls:
  GROUPS IN_TURN
  ret
  .size bench_turns_calls, . - bench_turns_calls

/* Enters there: bench_call_turns(argument, address). Aligned as the psABI wants it. */
  .balign 64
  .globl bench_call_turns
  .type bench_call_turns, @function
bench_call_turns:
  subq $8, %rsp
  call *%rsi
  addq $8, %rsp
  ret
  .size bench_call_turns, . - bench_call_turns

/* Room for detours made by hand, 64 KiB and more away. */
  .balign 4096, 0xcc
  .skip 65536, 0xcc
  .globl bench_turns_near, bench_turns_end
bench_turns_near:
  .skip 65536, 0xcc
bench_turns_end:

  .section .tbss, "awT", @nobits
  .balign 64
  .globl bench_turn_counters
  .type bench_turn_counters, @object
  .size bench_turn_counters, 8 * kTurns
bench_turn_counters:
  .zero 8 * kTurns
  .section .note.GNU-stack, "", @progbits
