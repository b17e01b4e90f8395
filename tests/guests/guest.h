/* A stand-in for a MirageOS image with the direct stack: what it takes, says and serves, whatever
 * it runs on. It serves one page over HTTP, answers ARP and ping, and echoes UDP on port 7.
 *
 *   --ipv4=ADDRESS/LEN     static address (default: ADDRESS, given when it is compiled)
 *   --ipv4-gateway=IP      its router; nothing is ever sent there that did not come from there
 *   --ipv4-only=BOOL       without it the stack takes a second for IPv6, as MirageOS's does
 *   --ipv6=ADDRESS/LEN     answers neighbour solicitation and ping there
 *   --ipv6-gateway=IP      taken, and of no effect
 *   --dhcp                 ask for a lease, as an image does that was configured so (also: -DDHCP)
 *   --port=N               TCP port (default 80)
 *   --hello=TEXT           what the page says (default: PAGE, given when it is compiled)
 *   --logs=...             taken, and of no effect
 *   --peer=IP              ping this neighbour until it answers, and say so
 *   --also=IP              announce this address, too, and answer nothing there
 *   --delay=MS             wait before anything else
 *   --crash-after=MS       crash that much later
 *   --hang-after=MS        answer nothing any more that much later
 *   --exit=N               exit with N instead of serving
 *
 * Whoever includes this defines the functions that are declared here and not defined.
 */
#ifndef GUEST_H
#define GUEST_H

#include "arguments.h"
#include "built.h"
#include "stack.h"

/* The console. */
static void put(const char *text, int length);
static void add_date(struct text *text);
/* Since some moment in the past. */
static uint64_t milliseconds(void);
/* Do nothing for so long. */
static void rest(int milliseconds);
/* Take an argument that only this target has; 1 where it is one. */
static int take_own(const char *word);
/* Open the network; say which MAC we have, and a number that differs between two boots. */
static void plug(uint8_t *mac, uint32_t *secret);
/* Wait for a frame for a moment, tens of milliseconds; 0 where none came. */
static int receive(uint8_t *frame);
static void transmit(const uint8_t *frame, int length);
static _Noreturn void end(int code);
static _Noreturn void crash(void);

static struct stack stack;
static const char *hello;
static int with_ipv4, ipv4_only, with_dhcp, exit_code;
static uint32_t also;
static int delay_ms, crash_after_ms = -1, hang_after_ms = -1;

static void line(const struct text *text)
{
    struct text ended = *text;
    add(&ended, "\n");
    put(ended.of, ended.length);
}

static void say(const char *level, const char *source, const struct text *what)
{
    struct text text = {0};
    add_date(&text);
    add(&text, ": ");
    add(&text, level);
    add(&text, " [");
    add(&text, source);
    add(&text, "] ");
    add(&text, what->of);
    line(&text);
}

static int boolean(const char *word, int *to)
{
    if (!word || (strcmp(word, "true") && strcmp(word, "false")))
        return 0;
    *to = *word == 't';
    return 1;
}

static int take_ipv4(const char *word)
{
    return word && !with_ipv4++ && read_cidr(word, &stack.address, &stack.prefix);
}

static int take_ipv6(const char *word)
{
    return word && strchr(word, '/') && (stack.has_ipv6 = read_ipv6(word, stack.ipv6));
}

static int take_hello(const char *word)
{
    return word && (hello = word);
}

static void take(const char *word)
{
    struct text text = {0};
    if (!strcmp(word, "--help")) {
        add(&text, "a stand-in for a MirageOS image with the direct stack");
        line(&text);
        end(63);
    }
    if (!strcmp(word, "--dhcp"))
        with_dhcp = 1;
    else if (!(take_ipv4(value(word, "--ipv4")) || take_ipv6(value(word, "--ipv6")) ||
               take_hello(value(word, "--hello")) ||
               boolean(value(word, "--ipv4-only"), &ipv4_only) ||
               (value(word, "--ipv4-gateway") &&
                read_ipv4(value(word, "--ipv4-gateway"), 0, &stack.gateway)) ||
               (value(word, "--peer") && read_ipv4(value(word, "--peer"), 0, &stack.peer)) ||
               (value(word, "--also") && read_ipv4(value(word, "--also"), 0, &also)) ||
               value(word, "--ipv6-gateway") || value(word, "--logs") ||
               number(word, "--port", &stack.port) || number(word, "--delay", &delay_ms) ||
               number(word, "--crash-after", &crash_after_ms) ||
               number(word, "--hang-after", &hang_after_ms) ||
               number(word, "--exit", &exit_code) || take_own(word))) {
        add(&text, "unikernel: unknown option, or a bad or second value: '");
        add(&text, word);
        add(&text, "'.");
        line(&text);
        end(64);
    }
}

static void make_page(void)
{
    struct text body = {0};
    add(&body, hello);
    body.length = body.length < PAGE_SIZE ? body.length : PAGE_SIZE - 1;
    body.of[body.length] = 0;
    add(&body, "\n");
    add(&stack.page, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ");
    add_number(&stack.page, body.length, 10, 1);
    add(&stack.page, "\r\nConnection: close\r\n\r\n");
    add(&stack.page, body.of);
}

/* Both lines as MirageOS 4.11 has them: they are what a log is searched for. */

static void announce(uint8_t *out)
{
    struct text text = {0};
    add(&text, "Sending gratuitous ARP for ");
    add_ipv4(&text, stack.address);
    add(&text, " (");
    add_mac(&text, stack.mac);
    add(&text, ")");
    say("INFO", "ARP", &text);
    transmit(out, announcement(&stack, out));
    if (also) {
        struct stack other = stack;
        other.address = also;
        transmit(out, announcement(&other, out));
    }
}

static void assembled(void)
{
    struct text text = {0};
    add(&text, "Dual TCP/IP stack assembled: mac=");
    add_mac(&text, stack.mac);
    add(&text, ",ip=");
    add_ipv4(&text, stack.address);
    add(&text, "/");
    add_number(&text, stack.prefix, 10, 1);
    say("INFO", "tcpip-stack-direct", &text);
}

/* As charrua's client says it. */
static void leased(void)
{
    struct text text = {0};
    add(&text, "Lease obtained! IP: ");
    add_ipv4(&text, stack.address);
    add(&text, ", routers: ");
    if (stack.gateway)
        add_ipv4(&text, stack.gateway);
    say("INFO", "dhcp_client_lwt", &text);
}

static void peer_answers(void)
{
    struct text text = {0};
    add_ipv4(&text, stack.peer);
    add(&text, " answers");
    say("INFO", "application", &text);
    stack.peer = 0;
}

static _Noreturn void serve(void)
{
    static uint8_t in[2048], out[2048];
    const uint64_t start = milliseconds();
    uint64_t assembled_at = 0, ask_at = 0, now;
    int addressed = 0, running = 0, length;

    for (;;) {
        now = milliseconds();
        if (crash_after_ms >= 0 && now - start >= (uint64_t)crash_after_ms)
            crash();
        if (!addressed && (stack.lease == STATIC || stack.lease == BOUND)) {
            addressed = 1;
            if (stack.lease == BOUND)
                leased();
            announce(out);
            /* MirageOS looks for a duplicate of its IPv6 address that long. */
            assembled_at = now + (ipv4_only ? 0 : 1000);
        }
        if (addressed && !running && now >= assembled_at) {
            running = 1;
            assembled();
        }
        if (!addressed && now >= ask_at) {
            transmit(out, dhcp_message(&stack, out));
            ask_at = now + 1000;
        }
        if (running && stack.peer && now >= ask_at) {
            transmit(out, question(&stack, out));
            ask_at = now + 200;
        }
        length = receive(in);
        if (!length || (addressed && !running) ||
            (hang_after_ms >= 0 && now - start >= (uint64_t)hang_after_ms))
            continue;
        length = answer(&stack, in, length, out);
        if (length)
            transmit(out, length);
        if (stack.peer_answers && stack.peer)
            peer_answers();
    }
}

/* Be the guest that was compiled, with these arguments. */
static _Noreturn void guest(const struct built *built, const char *joined)
{
    static char pieces[65536];
    char *words[256];
    int count = split(joined, pieces, words, 256);

    hello = built->page;
    with_dhcp = built->dhcp;
    exit_code = built->exit_code;
    stack.port = 80;
    read_cidr(built->address, &stack.address, &stack.prefix);
    for (int i = 0; i < count; i++)
        take(words[i]);
    make_page();
    rest(delay_ms);
    if (exit_code >= 0) {
        struct text text = {0};
        add(&text, "Fatal error: exception Failure(\"asked to exit\")");
        say("ERROR", "application", &text);
        end(exit_code);
    }
    plug(stack.mac, &stack.secret);
    if (with_dhcp) {
        stack.lease = SELECTING;
        stack.address = 0;
    }
    serve();
}

#endif
