/* A stand-in for solo5-spt and solo5-hvt, told by its name, where the real ones are not installed.
 *
 * It takes their command line, reads the image's notes, refuses what they refuse (with 1, and the
 * reason on stderr), attaches the tap, and then is the guest itself: the image (solo5_image.c) says
 * in a note which one. It needs no KVM, and gives the guest no memory. What it takes and when it
 * refuses is that of Solo5 0.12 (tenders/spt, tenders/hvt, tenders/common).
 */
#include <elf.h>
#include <err.h>
#include <libgen.h>
#include <limits.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <signal.h>
#include <stdarg.h>

#include "solo5_notes.h"
#include "tap.h"

#define ABI_VERSION 2

/* A device of the manifest, and what the command line binds it to. */
struct binding {
    char name[DEVICE_NAME];
    uint32_t kind;
    int file; /* -1 until it is attached */
    int sector_size;
    uint8_t mac[6];
};

static struct binding bindings[MOST_DEVICES];
static int device_count;
static struct built built;
static uint64_t image_end;
static const char *program;
static enum target own_target;

static _Noreturn void usage(void)
{
    fprintf(stderr,
            "usage: %s [OPTIONS] [--] KERNEL [ARGS]\n"
            "  --mem=MB  --help  --version\n"
            "  --net:NAME=TAP  --net-mac:NAME=MAC\n"
            "  --block:NAME=PATH  --block-sector-size:NAME=N\n",
            program);
    exit(1);
}

/* Reading the image. */

static void read_at(int image, void *to, size_t length, off_t offset, const char *what)
{
    if (pread(image, to, length, offset) != (ssize_t)length)
        errx(1, "the image is cut short: no %s", what);
}

/* Copy the note of this owner and type; return its length. As with the real tenders, the note has
 * to be the first of its segment. */
static uint32_t read_note(int image, const char *owner, uint32_t type, void *to, uint32_t most)
{
    Elf64_Ehdr elf;
    Elf64_Phdr segment;
    struct note_header note;
    uint32_t length = 0;
    read_at(image, &elf, sizeof elf, 0, "ELF header");
    if (memcmp(elf.e_ident, ELFMAG, SELFMAG) || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
        elf.e_type != ET_EXEC || elf.e_phentsize != sizeof segment)
        errx(1, "the image is no 64-bit ELF executable");
    for (int i = 0; i < elf.e_phnum; i++) {
        read_at(image, &segment, sizeof segment, elf.e_phoff + i * sizeof segment, "segment");
        if (segment.p_type == PT_LOAD && segment.p_vaddr + segment.p_memsz > image_end)
            image_end = segment.p_vaddr + segment.p_memsz;
        if (segment.p_type != PT_NOTE || segment.p_filesz < sizeof note)
            continue;
        read_at(image, &note, sizeof note, segment.p_offset, "note");
        if (note.type != type || memcmp(note.name, owner, strlen(owner) + 1))
            continue;
        if (note.size > most || note.size + sizeof note > segment.p_filesz)
            errx(1, "the image has a note of a wrong size");
        length = note.size;
        read_at(image, to, length, segment.p_offset + sizeof note, "note");
    }
    return length;
}

static void read_image(const char *path)
{
    static struct {
        struct manifest head;
        struct device device[MOST_DEVICES];
    } manifest;
    struct abi abi;
    uint32_t size;
    int image = open(path, O_RDONLY | O_CLOEXEC);
    if (image < 0)
        err(1, "the image %s cannot be opened", path);
    if (!read_note(image, "Solo5", ABI1, &abi, sizeof abi))
        errx(1, "%s says no Solo5 ABI", path);
    if (abi.target != own_target)
        errx(1, "%s is for another target than %s: number %u", path, program, abi.target);
    if (abi.version != ABI_VERSION)
        errx(1, "%s is for ABI version %u; this is %d", path, abi.version, ABI_VERSION);
    size = read_note(image, "Solo5", MFT1, &manifest, sizeof manifest);
    if (size < sizeof manifest.head || manifest.head.version != 1 || !manifest.head.devices ||
        size != sizeof manifest.head + manifest.head.devices * sizeof(struct device))
        errx(1, "%s has no valid manifest", path);
    for (uint32_t i = 1; i < manifest.head.devices; i++, device_count++) {
        memcpy(bindings[device_count].name, manifest.device[i].name, DEVICE_NAME - 1);
        bindings[device_count].kind = manifest.device[i].kind;
        bindings[device_count].file = -1;
        bindings[device_count].sector_size = 512;
    }
    if (read_note(image, "Guest", GUEST, &built, sizeof built) != sizeof built)
        errx(1, "%s is no image of ours: this stand-in runs no code", path);
    close(image);
}

/* Options. */

static struct binding *declared(const char *name, uint32_t kind)
{
    for (int i = 0; i < device_count; i++)
        if (bindings[i].kind == kind && !strcmp(bindings[i].name, name))
            return &bindings[i];
    warnx("the manifest declares no such device: '%s'", name);
    return NULL;
}

/* Large frames that Linux put together would not fit the guest's buffers: Solo5 asks for none. It
 * is not looked at whether that was allowed, and Solo5 does not look either. */
static void take_no_large_frames(const char *name)
{
    static const uint32_t commands[] = {ETHTOOL_SGRO, ETHTOOL_SGSO};
    for (int i = 0; i < 2; i++) {
        struct ethtool_value off = {commands[i], 0};
        struct ifreq request = {.ifr_data = (void *)&off};
        ask_any(SIOCETHTOOL, name, &request);
    }
}

static int attach_net(struct binding *device, const char *name)
{
    const int flags = interface_flags(name);
    if (!device)
        return 0;
    /* In 0.12 a file descriptor, @N, is refused like that. */
    if (*name == '@')
        errno = 0;
    else if (flags >= 0 && !(flags & (IFF_UP | IFF_RUNNING)))
        errno = ENETDOWN;
    else if (flags >= 0)
        device->file = attach(name);
    if (device->file < 0)
        warnx("the interface %s cannot be attached: %s", name, strerror(errno));
    else
        take_no_large_frames(name);
    return device->file >= 0;
}

static int attach_block(struct binding *device, const char *path)
{
    if (!device)
        return 0;
    device->file = open(path, O_RDWR | O_CLOEXEC);
    if (device->file < 0)
        err(1, "the block device %s cannot be opened", path);
    return 1;
}

static int take_option(const char *option, uint64_t *memory)
{
    char name[DEVICE_NAME], bound[PATH_MAX + 1];
    unsigned mac[6], size;
    struct binding *device;
    if (!strncmp(option, "--mem=", 6)) {
        if (sscanf(option, "--mem=%lu", memory) != 1 || !(*memory <<= 20))
            errx(1, "--mem takes a number of MB");
        return 1;
    }
    if (sscanf(option, "--net:%67[A-Za-z0-9]=%19s", name, bound) == 2)
        return attach_net(declared(name, NET_BASIC), bound);
    if (sscanf(option, "--net-mac:%67[A-Za-z0-9]=%2x:%2x:%2x:%2x:%2x:%2x", name, &mac[0], &mac[1],
               &mac[2], &mac[3], &mac[4], &mac[5]) == 7) {
        device = declared(name, NET_BASIC);
        for (int i = 0; device && i < 6; i++)
            device->mac[i] = mac[i];
        return !!device;
    }
    if (sscanf(option, "--block:%67[A-Za-z0-9]=%4096s", name, bound) == 2)
        return attach_block(declared(name, BLOCK_BASIC), bound);
    if (sscanf(option, "--block-sector-size:%67[A-Za-z0-9]=%u", name, &size) == 2) {
        if (size < 512 || size > 32768 || size & (size - 1))
            return 0;
        device = declared(name, BLOCK_BASIC);
        if (device)
            device->sector_size = size;
        return !!device;
    }
    return 0;
}

/* What is checked when everything is known. */

static void check_devices(void)
{
    int unbound = 0;
    for (int i = 0; i < device_count; i++) {
        const struct binding *device = &bindings[i];
        if (device->file < 0) {
            warnx("the manifest's device '%s' of type %s is not attached", device->name,
                  device->kind == NET_BASIC ? "NET_BASIC" : "BLOCK_BASIC");
            unbound = 1;
        } else if (device->kind == BLOCK_BASIC) {
            const off_t size = lseek(device->file, 0, SEEK_END);
            if (size < device->sector_size || size % device->sector_size)
                errx(1, "%s: its size, %ld, is not made of blocks of %d bytes", device->name,
                     (long)size, device->sector_size);
        }
    }
    if (unbound)
        errx(1, "every device has to be attached; --help says how");
}

/* The guest: all it says goes to stdout, which a real tender does not buffer. */

static void put(const char *text, int length)
{
    if (write(STDOUT_FILENO, text, length) != length)
        return;
}

static __attribute__((format(printf, 1, 2))) void print(const char *format, ...)
{
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    put(line, strlen(line));
}

static int take_own(const char *word)
{
    (void)word;
    return 0;
}

static _Noreturn void end(int code)
{
    print("Solo5: solo5_exit(%d) called\n", code);
    exit(code);
}

static _Noreturn void crash(void)
{
    print("Solo5: solo5_abort() called\n");
    exit(255);
}

static void plug(uint8_t *mac, uint32_t *secret)
{
    uint8_t random[6];
    random_mac(random);
    *secret = get32(random + 2) ^ getpid();
    memcpy(mac, random, 6);
    for (int i = 0; i < device_count; i++)
        if (bindings[i].file == tap && memcmp(bindings[i].mac, (uint8_t[6]){0}, 6))
            memcpy(mac, bindings[i].mac, 6);
}

static void start_devices(uint64_t memory)
{
    print("Solo5: a stand-in for %s\nSolo5: %lu MB addressable\n", program, memory >> 20);
    for (int i = 0; i < device_count; i++) {
        const struct binding *device = &bindings[i];
        char sector[512 + 1] = "";
        print("Solo5: application acquired '%s' as %s device\n", device->name,
              device->kind == NET_BASIC ? "network" : "block");
        if (device->kind == NET_BASIC && tap < 0)
            tap = device->file;
        if (device->kind == BLOCK_BASIC && pread(device->file, sector, 512, 0) == 512)
            print("%s: %.*s\n", device->name, (int)strcspn(sector, "\n"), sector);
    }
}

/* solo5-hvt has a handler, solo5-spt has none. */
static void on_signal(int number)
{
    dprintf(STDERR_FILENO, "%s: ended by signal %d\n", program, number);
    _exit(1);
}

int main(int argc, char **argv)
{
    uint64_t memory = 512ull << 20;
    char **word = argv + 1;
    (void)argc;

    program = basename(argv[0]);
    own_target = strstr(program, "hvt") ? HVT : SPT;
    /* The image is found first: the options are about its manifest. */
    for (; *word && **word == '-'; word++) {
        if (!strcmp(*word, "--") && word++)
            break;
        if (!strcmp(*word, "--help"))
            usage();
        if (!strcmp(*word, "--version")) {
            fprintf(stderr, "%s tender, version stand-in\nABI version %d\n", program, ABI_VERSION);
            exit(0);
        }
    }
    if (!*word) {
        warnx("which KERNEL?");
        usage();
    }
    read_image(*word);
    for (char **option = argv + 1; option < word && strcmp(*option, "--"); option++)
        if (!take_option(*option, &memory)) {
            warnx("not a valid option: '%s'", *option);
            usage();
        }
    if (image_end > memory)
        errx(1, "%s does not fit the memory", *word);
    if (own_target == HVT) {
        signal(SIGTERM, on_signal);
        signal(SIGINT, on_signal);
    }
    check_devices();
    start_devices(memory);
    guest(&built, join(word + 1));
}
