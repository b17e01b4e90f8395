/* How a PV guest comes by what it shares with Xen: its memory has page tables that are Xen's. */
#ifndef XEN_PV_H
#define XEN_PV_H

struct start_info {
    char magic[32];
    uint64_t pages, shared_info;
    uint32_t flags;
    uint64_t store_frame;
    uint32_t store_port;
    uint64_t console_frame;
    uint32_t console_port;
    uint64_t page_tables, page_table_frames;
    uint64_t *frames; /* of each of our pages */
    uint64_t module, module_length;
    char command_line[1024];
};

static const struct start_info *info;

static uint64_t frame_of(const volatile void *page)
{
    return info->frames[(uint64_t)page / FRAME];
}

/* Where a frame of ours is: the builder has mapped all that it gave us. */
static volatile void *page_of(uint64_t frame)
{
    for (uint64_t page = 0; page < info->pages; page++)
        if (info->frames[page] == frame)
            return (volatile void *)(page * FRAME);
    leave(CRASH);
}

/* Have a page of ours be a frame of Xen's: present, writable, the user's as all of ours. */
static void map(volatile void *page, uint64_t frame)
{
    if (call(UPDATE_VA_MAPPING, (uint64_t)page, frame * FRAME | 7, 2))
        leave(CRASH);
}

/* Be ready for all of it; return the command line. */
static const char *start_xen(const struct start_info *given)
{
    uint64_t frame;
    struct {
        uint16_t domain;
        uint32_t frames;
        int16_t status;
        uint64_t *list;
    } setup = {SELF, 1, 0, &frame};

    info = given;
    map(&shared, info->shared_info / FRAME);
    console = page_of(info->console_frame);
    console_port = info->console_port;
    store = page_of(info->store_frame);
    store_port = info->store_port;
    if (call(GRANT_TABLE_OP, 2, (uint64_t)&setup, 1) || setup.status)
        leave(CRASH);
    map(grants, frame);
    return info->command_line;
}

#endif
