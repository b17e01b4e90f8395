/* A stand-in for a MirageOS `xen` image: a kernel of its own, for a Xen that is real. Its network is
 * the first vif.
 *
 * It takes arguments as images of MirageOS 3 for PV do: `key=value`, and in silence it takes no
 * notice of what has dashes. Compiled with -DPVH it is one of the later images, which take dashes.
 */
#include "freestanding.h"
#include "words.h"
#include "xen.h"

static _Noreturn void end(int code)
{
    struct text text = {0};
    add(&text, "Solo5: solo5_exit(");
    add_number(&text, code, 10, 1);
    add(&text, ") called");
    line(&text);
    flush();
    leave(POWEROFF);
}

static _Noreturn void crash(void)
{
    print("Solo5: solo5_abort() called", "", "");
    flush();
    leave(CRASH);
}

static void add_date(struct text *text)
{
    const uint64_t seconds = milliseconds() / 1000;
    add(text, "1970-01-01T");
    add_number(text, seconds / 3600 % 24, 10, 2);
    add(text, ":");
    add_number(text, seconds / 60 % 60, 10, 2);
    add(text, ":");
    add_number(text, seconds % 60, 10, 2);
    add(text, "-00:00");
}

/* The network (Xen's public io/netif.h and io/ring.h). */

#define SLOTS 256
#define BUFFERS 64

struct ring {
    uint32_t asked, ask_event, answered, answer_event;
    uint8_t padding[48];
    union {
        struct {
            uint16_t id, padding;
            uint32_t grant;
        } offered;
        struct {
            uint16_t id, offset, flags;
            int16_t status;
        } received;
    } slot[SLOTS];
};

struct sending_ring {
    uint32_t asked, ask_event, answered, answer_event;
    uint8_t padding[48];
    union {
        struct {
            uint32_t grant;
            uint16_t offset, flags, id, size;
        } sent;
        struct {
            uint16_t id;
            int16_t status;
        } done;
    } slot[SLOTS];
};

static volatile struct ring receiving ALIGNED;
static volatile struct sending_ring sending ALIGNED;
static uint8_t received[BUFFERS][FRAME] ALIGNED, sent[BUFFERS][FRAME] ALIGNED;
static uint32_t received_grants[BUFFERS], sent_grants[BUFFERS], received_count, network_port;
static uint16_t back_end;

static void offer(uint16_t buffer)
{
    const uint32_t at = receiving.asked % SLOTS;
    receiving.slot[at].offered.id = buffer;
    receiving.slot[at].offered.grant = received_grants[buffer];
    __sync_synchronize();
    receiving.asked++;
}

static int receive(uint8_t *frame)
{
    uint32_t at;
    int length;
    if (!network_port || receiving.answered == received_count) {
        receiving.answer_event = received_count + 1;
        __sync_synchronize();
        if (receiving.answered == received_count)
            wait_on(network_port ? network_port : console_port);
    }
    if (!network_port || receiving.answered == received_count)
        return 0;
    at = received_count++ % SLOTS;
    const uint16_t buffer = receiving.slot[at].received.id % BUFFERS;
    length = receiving.slot[at].received.status;
    length = length < 0 ? 0 : length > 2048 ? 2048 : length;
    memcpy(frame, received[buffer] + receiving.slot[at].received.offset % FRAME, length);
    offer(buffer);
    notify(network_port);
    return length;
}

static void rest(int long_ms)
{
    const uint64_t start = milliseconds();
    while (milliseconds() - start < (uint64_t)long_ms)
        wait_on(console_port);
}

static void transmit(const uint8_t *frame, int length)
{
    const uint32_t at = sending.asked % SLOTS, buffer = sending.asked % BUFFERS;
    while (sending.asked - sending.answered >= BUFFERS)
        wait_on(network_port);
    memcpy(sent[buffer], frame, length);
    sending.slot[at].sent.grant = sent_grants[buffer];
    sending.slot[at].sent.offset = 0;
    sending.slot[at].sent.flags = 0;
    sending.slot[at].sent.id = buffer;
    sending.slot[at].sent.size = length;
    __sync_synchronize();
    sending.asked++;
    notify(network_port);
}

static void say_store(const char *key, uint64_t number)
{
    struct text path = {0}, text = {0};
    char answer[256];
    add(&path, "device/vif/0/");
    add(&path, key);
    add_number(&text, number, 10, 1);
    if (!ask_store(WRITE, path.of, text.of, answer))
        crash();
}

static int state_of(const char *back_end_path)
{
    struct text path = {0};
    char answer[256];
    add(&path, back_end_path);
    add(&path, "/state");
    return ask_store(READ, path.of, NULL, answer) ? *answer - '0' : 0;
}

static void await_state(const char *back_end_path, int state)
{
    while (state_of(back_end_path) != state)
        wait_on(store_port);
}

/* States of xenbus (io/xenbus.h): 2 waits for what we say, 4 is connected. */
static void plug(uint8_t *mac, uint32_t *secret)
{
    char path[256], answer[256];
    if (!ask_store(READ, "device/vif/0/backend", NULL, path)) {
        print("Netif: there is no vif", "", "");
        crash();
    }
    if (!ask_store(READ, "device/vif/0/mac", NULL, answer))
        crash();
    for (int i = 0; i < 6; i++) {
        const char high = answer[3 * i] | 32, low = answer[3 * i + 1] | 32;
        mac[i] = (high < 'a' ? high - '0' : high - 'a' + 10) << 4 |
                 (low < 'a' ? low - '0' : low - 'a' + 10);
    }
    await_state(path, 2);
    back_end = 0;
    receiving.ask_event = sending.ask_event = 1;
    receiving.answer_event = 1;
    sending.answer_event = 1;
    for (int i = 0; i < BUFFERS; i++) {
        received_grants[i] = grant(back_end, received[i]);
        sent_grants[i] = grant(back_end, sent[i]);
        offer(i);
    }
    network_port = open_port(back_end);
    say_store("rx-ring-ref", grant(back_end, &receiving));
    say_store("tx-ring-ref", grant(back_end, &sending));
    say_store("event-channel", network_port);
    say_store("request-rx-copy", 1);
    say_store("feature-rx-notify", 1);
    say_store("feature-no-csum-offload", 1);
    say_store("state", 4);
    await_state(path, 4);
    *secret = __builtin_ia32_rdtsc();
}

static int take_own(const char *word)
{
    /* Debian's kernel, which other guests here are, takes it. */
    return value(word, "--console") != NULL;
}

_Noreturn void kernel(const struct start_info *given);

_Noreturn void kernel(const struct start_info *given)
{
    static const struct built built = BUILT;
    const char *command_line = start_xen(given);
    print("Solo5: a stand-in for a xen image", "", "");
#ifdef PVH
    guest(&built, command_line);
#else
    static char pieces[2048], *words[256];
    struct text dashed = {0};
    const int count = split(command_line, pieces, words, 256);
    for (int i = 0; i < count; i++)
        if (words[i][0] != '-') {
            add(&dashed, "--");
            add(&dashed, words[i]);
            add(&dashed, " ");
        }
    guest(&built, dashed.of);
#endif
}
