/* The page that Xen fills in with its hypercalls. */

    .text
    .balign 4096
    .globl hypercall_page
hypercall_page:
    .skip 4096
    .section .note.GNU-stack, "", @progbits
