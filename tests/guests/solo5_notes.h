/* What a Solo5 image says of itself in ELF notes, each in a segment of its own: its target, the
 * version of that target's ABI, and the devices it takes (Solo5's elf_abi.h and mft_abi.h). A note
 * of ours says what the guest is, for the tender that stands in for an image's code. */
#ifndef SOLO5_NOTES_H
#define SOLO5_NOTES_H

#include <stdint.h>

#include "built.h"

enum target { HVT = 1, SPT = 2, VIRTIO = 3 };
enum note { ABI1 = 0x31494241, MFT1 = 0x3154464d, GUEST = 0x54535547 };
enum kind { BLOCK_BASIC = 1, NET_BASIC = 2, RESERVED_FIRST = 1 << 30 };

#define MOST_DEVICES 64
#define DEVICE_NAME 68

struct note_header {
    uint32_t name_size, size, type;
    char name[8];
};

struct abi {
    uint32_t target, version, reserved[2];
};

/* All that follows `kind` is the tender's, and zero in a file. */
struct device {
    char name[DEVICE_NAME];
    uint32_t kind;
    uint8_t properties[16], backing[8], attached, padding[7];
};

struct manifest {
    uint32_t alignment, version, devices;
};

#define NOTE(holder, owner, type) \
    {sizeof owner, sizeof(struct holder) - sizeof(struct note_header), type, owner}

/* Define the notes of an image. DEVICES is a list of {"name", NET_BASIC or BLOCK_BASIC}; before
 * them stands an entry that every manifest starts with. */
#ifdef TARGET
#ifndef DEVICES
#define DEVICES {"service", NET_BASIC}
#endif
#ifndef ABI_VERSION
#define ABI_VERSION (TARGET == VIRTIO ? 1 : 2)
#endif
#define DEVICE_COUNT (int)(sizeof(struct device[]){DEVICES} / sizeof(struct device))
#define IN_SECTION(name) __attribute__((used, section(name), aligned(4)))

struct abi_note {
    struct note_header header;
    struct abi abi;
};

struct manifest_note {
    struct note_header header;
    struct manifest manifest;
    struct device device[1 + DEVICE_COUNT];
};

struct guest_note {
    struct note_header header;
    struct built built;
};

IN_SECTION(".note.solo5.abi") static const struct abi_note abi_note =
    {NOTE(abi_note, "Solo5", ABI1), {TARGET, ABI_VERSION, {0}}};
IN_SECTION(".note.solo5.manifest") static const struct manifest_note manifest_note =
    {NOTE(manifest_note, "Solo5", MFT1), {0, 1, 1 + DEVICE_COUNT}, {{"", RESERVED_FIRST}, DEVICES}};
IN_SECTION(".note.guest") static const struct guest_note guest_note =
    {NOTE(guest_note, "Guest", GUEST), BUILT};
/* Keeps Linux from starting the image as a program, as Solo5's toolchain does. */
IN_SECTION(".interp") static const char interpreter[] = "/nonexistent/solo5/";
#endif

#endif
