/* How a PVH guest comes by what it shares with Xen: it asks, and has it put into its memory. */
#ifndef XEN_PVH_H
#define XEN_PVH_H

/* Xen's public arch-x86/hvm/start_info.h */
struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line;
};

enum { STORE_FRAME = 1, STORE_PORT = 2, CONSOLE_FRAME = 17, CONSOLE_PORT = 18 };

static uint64_t frame_of(const volatile void *page)
{
    return (uint64_t)page / FRAME;
}

static uint64_t parameter(uint32_t index)
{
    struct {
        uint16_t domain;
        uint32_t index;
        uint64_t value;
    } asked = {SELF, index, 0};
    if (call(HVM_OP, 1, (uint64_t)&asked, 0))
        leave(CRASH);
    return asked.value;
}

/* Have a page of ours be one of Xen's: 0 is what is shared, 1 the table of grants. */
static void replace(volatile void *page, uint32_t space)
{
    struct {
        uint16_t domain, size;
        uint32_t space;
        uint64_t index, frame;
    } added = {SELF, 0, space, 0, frame_of(page)};
    if (call(MEMORY_OP, 7, (uint64_t)&added, 0))
        leave(CRASH);
}

static void identify(uint32_t leaf, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
    __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "0"(leaf), "2"(0));
}

/* Xen fills a page with its calls where it is told to, by a register that cpuid names. */
static void open_calls(void)
{
    uint32_t leaf = 0x40000000, a, b, c, d;
    for (;; leaf += 0x100) {
        identify(leaf, &a, &b, &c, &d);
        if (b == 0x566e6558 && c == 0x65584d4d) /* XenVMMXenVMM */
            break;
    }
    identify(leaf + 2, &a, &b, &c, &d);
    __asm__ volatile("wrmsr" : : "c"(b), "a"(hypercall_page), "d"(0) : "memory");
}

/* Be ready for all of it; return the command line. */
static const char *start_xen(const struct start_info *given)
{
    open_calls();
    replace(&shared, 0);
    replace(grants, 1);
    console = (void *)(parameter(CONSOLE_FRAME) * FRAME);
    console_port = parameter(CONSOLE_PORT);
    store = (void *)(parameter(STORE_FRAME) * FRAME);
    store_port = parameter(STORE_PORT);
    return given->command_line ? (const char *)given->command_line : "";
}

#endif
