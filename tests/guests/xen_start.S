/* What Xen's builder of PV domains is told of a kernel, and the way from there to C. */

/* Xen's public/elfnote.h */
#define ENTRY 1
#define HYPERCALL_PAGE 2
#define VIRT_BASE 3
#define PADDR_OFFSET 4
#define XEN_VERSION 5
#define GUEST_OS 6
#define LOADER 8

#define NOTE(type, content...) \
    .long 4, 2f - 1f, type; .asciz "Xen"; 1: content; 2: .balign 4

    .section .note.Xen, "a", @note
    .balign 4
    NOTE(GUEST_OS, .asciz "stand-in")
    NOTE(XEN_VERSION, .asciz "xen-3.0")
    NOTE(LOADER, .asciz "generic")
    /* Memory begins at 0, for us as for the builder. */
    NOTE(VIRT_BASE, .quad 0)
    NOTE(PADDR_OFFSET, .quad 0)
    NOTE(ENTRY, .quad _start)
    NOTE(HYPERCALL_PAGE, .quad hypercall_page)

    .bss
    .balign 16
    .skip 65536
stack_end:

    .text
    .globl _start
_start:
    leaq stack_end, %rsp
    movq %rsi, %rdi /* start_info */
    call kernel
    .section .note.GNU-stack, "", @progbits
