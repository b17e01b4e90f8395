/* From 32-bit mode, without paging, to 64-bit C: to `kernel`, whose argument is what is in %ebx. */

    .bss
    .balign 4096
level4: .skip 4096
level3: .skip 4096
level2: .skip 4 * 4096
    .skip 65536
stack_end:

    .data
    .balign 8
segments:
    .quad 0
    .quad 0x00209a0000000000 /* 64-bit code */
    .quad 0x0000920000000000 /* data */
segments_pointer:
    .word segments_pointer - segments - 1
    .long segments

    .text
    .code32
    .globl _start
_start:
    cli
    movl $stack_end, %esp
    movl %ebx, %esi
    /* The first 4 GiB are mapped to themselves, in pages of 2 MiB. */
    movl $level3 + 3, level4
    movl $level2 + 3, level3
    movl $level2 + 4096 + 3, level3 + 8
    movl $level2 + 8192 + 3, level3 + 16
    movl $level2 + 12288 + 3, level3 + 24
    movl $level2, %edi
    movl $0x83, %eax
    movl $2048, %ecx
1:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    /* Intel's manual, volume 3, 9.8.5: PAE, page tables, long mode, paging. */
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $level4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    lgdt segments_pointer
    ljmp $8, $start64

    .code64
start64:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %esi, %edi
    call kernel
    .section .note.GNU-stack, "", @progbits
