// Functions on pages of their own, for replaced_text_test. page_N_first returns 1, page_N_second 7 more than its argument.
.macro page number
.section .text.page, "ax", @progbits
.balign 4096
.globl page_\number\()_first, page_\number\()_second
.type page_\number\()_first, @function
page_\number\()_first: movl $1, %eax
ret
.size page_\number\()_first, . - page_\number\()_first
.type page_\number\()_second, @function
page_\number\()_second: leaq 7(%rdi), %rax
ret
.size page_\number\()_second, . - page_\number\()_second
.balign 4096
.endm
page 0
page 1
page 2
page 3
page 4
page 5
page 6
page 7
.section .note.GNU-stack, "", @progbits
