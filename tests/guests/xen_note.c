/* What makes a program of this host look like a kernel for Xen: a note of Xen's owner (Xen's
 * public/elfnote.h), for `tests/stand_in_xl.py`, which runs it. */
#include <stdint.h>

#define GUEST_OS 6

__attribute__((used, section(".note.Xen"), aligned(4))) static const struct {
    uint32_t name_size, size, type;
    char name[4], content[12];
} note = {sizeof "Xen", 12, GUEST_OS, "Xen", "stand-in"};
