/* Where Xen enters a PVH kernel, in 32-bit mode without paging; %ebx has its start_info. */

/* Xen's public/elfnote.h */
#define PHYS32_ENTRY 18

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 4, PHYS32_ENTRY
    .asciz "Xen"
    .long _start

    .section .note.GNU-stack, "", @progbits
