/* What a multiboot loader looks for. It leaves a kernel in 32-bit mode; %ebx has its information.
 *
 * Multiboot 0.6.96, 3.1: memory is told of, and the addresses here are used, not the ELF file's.
 */
#define MAGIC 0x1badb002
#define FLAGS 0x00010002

    .section .multiboot, "a"
    .balign 4
header:
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)
    .long header, 0x100000, data_end, bss_end, _start

    .section .note.GNU-stack, "", @progbits
