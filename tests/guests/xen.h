/* What a guest needs of Xen: calls, time, events, the console, xenstore, and memory it grants.
 *
 * Structures and numbers are those of Xen's public headers (xen.h, memory.h, sched.h, event_channel.h,
 * grant_table.h, io/console.h, io/xs_wire.h). The guest takes no interrupt and sets no trap: it asks
 * Xen to wait (SCHEDOP_poll), and a fault ends the domain with a crash.
 */
#ifndef XEN_H
#define XEN_H

#include <stdint.h>

#define FRAME 4096
#define SELF 0x7ff0 /* this domain */
#define ALIGNED __attribute__((aligned(FRAME)))

enum {
    MEMORY_OP = 12,
    UPDATE_VA_MAPPING = 14,
    GRANT_TABLE_OP = 20,
    SCHED_OP = 29,
    EVENT_CHANNEL_OP = 32,
    HVM_OP = 34
};
enum { SHUTDOWN = 2, POLL = 3 };
enum reason { POWEROFF = 0, CRASH = 3 };

struct shared_info {
    struct {
        uint8_t upcall[32];
        uint32_t version, padding;
        uint64_t stamp, time;
        uint32_t multiplier;
        int8_t shift;
        uint8_t flags[3];
    } cpu[32];
    uint64_t pending[64], mask[64];
    uint8_t rest[1024]; /* a page that has nothing of ours */
};

static volatile struct shared_info shared ALIGNED;
static uint32_t console_port, store_port;

extern uint8_t hypercall_page[];

static int64_t call(int number, uint64_t one, uint64_t two, uint64_t three)
{
    uint64_t result = (uint64_t)hypercall_page + 32 * number;
    __asm__ volatile("call *%%rax"
                     : "+a"(result), "+D"(one), "+S"(two), "+d"(three)
                     :
                     : "rcx", "r8", "r9", "r10", "r11", "memory");
    return result;
}

static _Noreturn void leave(uint32_t reason)
{
    for (;;)
        call(SCHED_OP, SHUTDOWN, (uint64_t)&reason, 0);
}

/* Memory: what we grant, as Xen has it; where the rest comes from differs between PV and PVH. */

static struct {
    uint16_t flags, domain;
    uint32_t frame;
} grants[FRAME / 8] ALIGNED;

static uint64_t frame_of(const volatile void *page);

/* Let a domain use a page of ours; return the reference it has to be told. */
static uint32_t grant(uint16_t domain, const volatile void *page)
{
    static uint32_t count = 8; /* those below are for the tools */
    grants[count].domain = domain;
    grants[count].frame = frame_of(page);
    __sync_synchronize();
    grants[count].flags = 1;
    return count++;
}

/* Time. */

static uint64_t nanoseconds(void)
{
    uint32_t version;
    uint64_t time;
    do {
        version = shared.cpu[0].version;
        __sync_synchronize();
        time = __builtin_ia32_rdtsc() - shared.cpu[0].stamp;
        if (shared.cpu[0].shift < 0)
            time >>= -shared.cpu[0].shift;
        else
            time <<= shared.cpu[0].shift;
        time = (uint64_t)(((unsigned __int128)time * shared.cpu[0].multiplier) >> 32);
        time += shared.cpu[0].time;
        __sync_synchronize();
    } while (version & 1 || version != shared.cpu[0].version);
    return time;
}

static uint64_t milliseconds(void)
{
    return nanoseconds() / 1000000;
}

/* Events. */

static void notify(uint32_t port)
{
    call(EVENT_CHANNEL_OP, 4, (uint64_t)&port, 0);
}

/* Wait until something happens on a port, tens of milliseconds at most. */
static void wait_on(uint32_t port)
{
    struct {
        uint32_t *ports, count;
        uint64_t until;
    } poll = {&port, 1, nanoseconds() + 20000000};
    call(SCHED_OP, POLL, (uint64_t)&poll, 0);
    __sync_fetch_and_and(&shared.pending[port / 64], ~(1ull << port % 64));
}

static uint32_t open_port(uint16_t domain)
{
    struct {
        uint16_t own, other;
        uint32_t port;
    } channel = {SELF, domain, 0};
    if (call(EVENT_CHANNEL_OP, 6, (uint64_t)&channel, 0))
        leave(CRASH);
    return channel.port;
}

/* The console. */

static volatile struct {
    char in[1024], out[2048];
    uint32_t in_taken, in_put, out_taken, out_put;
} *console;

static void put(const char *text, int length)
{
    while (length) {
        if (console->out_put - console->out_taken < sizeof console->out) {
            console->out[console->out_put % sizeof console->out] = *text++;
            __sync_synchronize();
            console->out_put++;
            length--;
            if (length)
                continue;
        }
        notify(console_port);
        if (length)
            wait_on(console_port);
    }
}

/* What was put there last is to be read before the domain is gone; a second is enough. */
static void flush(void)
{
    for (int i = 0; i < 50 && console->out_taken != console->out_put; i++)
        wait_on(console_port);
}

/* xenstore. */

enum { READ = 2, WRITE = 11, ERROR = 16 };

static volatile struct {
    char request[1024], response[1024];
    uint32_t request_taken, request_put, response_taken, response_put;
} *store;

struct message {
    uint32_t kind, request, transaction, length;
};

static void to_store(const void *data, uint32_t length)
{
    for (const char *byte = data; length; length--) {
        while (store->request_put - store->request_taken == sizeof store->request)
            wait_on(store_port);
        store->request[store->request_put % sizeof store->request] = *byte++;
        __sync_synchronize();
        store->request_put++;
    }
}

static void from_store(void *data, uint32_t length)
{
    for (char *byte = data; length; length--) {
        while (store->response_put == store->response_taken)
            wait_on(store_port);
        *byte++ = store->response[store->response_taken % sizeof store->response];
        __sync_synchronize();
        store->response_taken++;
    }
}

/* Ask for, or say, what is at a path; an answer fits 256 bytes. Return whether that was possible. */
static int ask_store(int kind, const char *path, const char *text, char *answer)
{
    const uint32_t length = strlen(path) + 1;
    struct message message = {kind, 0, 0, length + (text ? strlen(text) : 0)};
    to_store(&message, sizeof message);
    to_store(path, length);
    if (text)
        to_store(text, strlen(text));
    notify(store_port);
    from_store(&message, sizeof message);
    if (message.length > 255)
        leave(CRASH);
    from_store(answer, message.length);
    answer[message.length] = 0;
    notify(store_port);
    return message.kind != ERROR;
}

#ifdef PVH
#include "xen_pvh.h"
#else
#include "xen_pv.h"
#endif

#endif
