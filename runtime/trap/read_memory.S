// Plain loads from memory of the program's that may not be there (reads.h). A fault of any instruction between the
// labels ubp_read_begin and ubp_read_fault goes on at the latter: rax has at every load how many bytes were read before
// it, and no stack is used.
//
// No load crosses a page, so that the number of bytes is exact. General registers only.

    .section ubp_trap_outside, "ax", @progbits
    .globl ubp_read_begin, ubp_read_fault, ubp_read_bytes, ubp_read_text
    .hidden ubp_read_begin, ubp_read_fault, ubp_read_bytes, ubp_read_text

// To ahead, where fewer than 8 bytes are left of what is asked for or of the page. rcx is lost.
.macro UNLESS_WORD to
    leaq 8(%rax), %rcx
    cmpq %rdx, %rcx
    ja \to
    leal (%rsi, %rax), %ecx
    andl $4095, %ecx
    cmpl $4088, %ecx
    ja \to
.endm

    .balign 16
ubp_read_begin:
// Loaded ubp_read_bytes(void* to [rdi], std::uint64_t from [rsi], std::uint64_t bytes [rdx])
    .type ubp_read_bytes, @function
ubp_read_bytes:
    xorl %eax, %eax
1:  UNLESS_WORD 2f
    movq (%rsi, %rax), %rcx
    movq %rcx, (%rdi, %rax)
    addq $8, %rax
    jmp 1b
2:  cmpq %rdx, %rax
    jae ubp_read_done
    movzbl (%rsi, %rax), %ecx
    movb %cl, (%rdi, %rax)
    incq %rax
    testb $7, %al
    jnz 2b
    jmp 1b
    .size ubp_read_bytes, . - ubp_read_bytes

// Loaded ubp_read_text(char* to [rdi], std::uint64_t from [rsi], std::uint64_t most [rdx]): up to a NUL, which does not
// count. What is stored behind it, up to 7 bytes and within most, has no meaning.
    .balign 16
    .type ubp_read_text, @function
ubp_read_text:
    xorl %eax, %eax
    movabsq $0x0101010101010101, %r8
    movabsq $0x8080808080808080, %r9
1:  UNLESS_WORD 2f
    movq (%rsi, %rax), %rcx
    movq %rcx, (%rdi, %rax)
    movq %rcx, %r10
    notq %rcx
    subq %r8, %r10
    andq %r9, %rcx
    andq %r10, %rcx                     // the lowest bit set is of the first NUL
    jnz 3f
    addq $8, %rax
    jmp 1b
2:  cmpq %rdx, %rax
    jae ubp_read_done
    movzbl (%rsi, %rax), %ecx
    testl %ecx, %ecx
    jz ubp_read_done
    movb %cl, (%rdi, %rax)
    incq %rax
    testb $7, %al
    jnz 2b
    jmp 1b
3:  bsfq %rcx, %rcx
    shrl $3, %ecx
    addq %rcx, %rax
ubp_read_done:
    xorl %edx, %edx
    ret
ubp_read_fault:
    movl $1, %edx
    ret
    .size ubp_read_text, . - ubp_read_text

    .section .note.GNU-stack, "", @progbits
