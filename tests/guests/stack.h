/* A network stack for guests: functions from a frame that came in to the frame that answers it.
 *
 * One frame in, at most one frame out, and no connection is ever remembered: whoever asks repeats
 * what was lost (ARP, ping, DHCP), and TCP's client does so too as long as a reply and its
 * acknowledgement are one segment. A page is therefore at most PAGE_SIZE bytes. What comes in is
 * trusted to be whole: checksums are made here, not checked.
 */
#ifndef STACK_H
#define STACK_H

#include <stdint.h>
#include <string.h>

#include "built.h"
#include "text.h"

#define FRAME_SIZE 1514

enum { ETHERNET = 14, ARP = 0x0806, IPV4 = 0x0800, IPV6 = 0x86dd };
enum { ICMP = 1, TCP = 6, UDP = 17, ICMPV6 = 58 };

/* STATIC has its address from the start; the others follow RFC 2131, 4.4. */
enum lease { STATIC, SELECTING, REQUESTING, BOUND };

struct stack {
    uint8_t mac[6], ipv6[16];
    uint32_t address, gateway; /* 0 where there is none */
    int prefix, has_ipv6;

    int port;
    struct text page; /* the whole HTTP reply */
    uint32_t secret;  /* differs between two boots */

    enum lease lease;
    uint32_t offered, server;

    uint32_t peer; /* pinged until it answers */
    int peer_answers;
};

static const uint8_t EVERYBODY[6] = {255, 255, 255, 255, 255, 255};

static uint16_t get16(const uint8_t *at) { return at[0] << 8 | at[1]; }
static uint32_t get32(const uint8_t *at) { return (uint32_t)get16(at) << 16 | get16(at + 2); }

static void put16(uint8_t *at, uint16_t number)
{
    at[0] = number >> 8;
    at[1] = number;
}

static void put32(uint8_t *at, uint32_t number)
{
    put16(at, number >> 16);
    put16(at + 2, number);
}

/* RFC 1071, over what follows a pseudo header whose sum is `start`. */
static uint16_t checksum(const uint8_t *data, int length, uint32_t start)
{
    uint32_t sum = start;
    for (int i = 0; i + 1 < length; i += 2)
        sum += get16(data + i);
    if (length % 2)
        sum += data[length - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

static int ethernet(const struct stack *stack, uint8_t *out, const uint8_t *to, int type)
{
    memcpy(out, to, 6);
    memcpy(out + 6, stack->mac, 6);
    put16(out + 12, type);
    return ETHERNET;
}

/* ARP, RFC 826. */

static int arp(const struct stack *stack, uint8_t *out, int operation, const uint8_t *to,
               const uint8_t *mac, uint32_t address)
{
    static const uint8_t kind[6] = {0, 1, 8, 0, 6, 4}; /* Ethernet and IPv4 */
    uint8_t *at = out + ethernet(stack, out, to, ARP);
    memcpy(at, kind, 6);
    put16(at + 6, operation);
    memcpy(at + 8, stack->mac, 6);
    put32(at + 14, stack->address);
    memcpy(at + 18, mac, 6);
    put32(at + 24, address);
    return ETHERNET + 28;
}

/* Tell everybody whose the address is now (RFC 5227, 3): stale entries of a guest that had another
 * MAC end here. */
static int announcement(const struct stack *stack, uint8_t *out)
{
    return arp(stack, out, 1, EVERYBODY, (const uint8_t[6]){0}, stack->address);
}

static int question(const struct stack *stack, uint8_t *out)
{
    return arp(stack, out, 1, EVERYBODY, (const uint8_t[6]){0}, stack->peer);
}

/* IPv4, RFC 791. The payload stands behind both headers in `out` already. */

static int ipv4(const struct stack *stack, uint8_t *out, const uint8_t *mac, uint32_t to,
                int protocol, int payload)
{
    uint8_t *at = out + ethernet(stack, out, mac, IPV4);
    memset(at, 0, 20);
    at[0] = 0x45;
    put16(at + 2, 20 + payload);
    at[6] = 0x40; /* not to be fragmented: then the identification may be 0 (RFC 6864) */
    at[8] = 64;
    at[9] = protocol;
    put32(at + 12, stack->address);
    put32(at + 16, to);
    put16(at + 10, checksum(at, 20, 0));
    return ETHERNET + 20 + payload;
}

static uint32_t pseudo_header(uint32_t from, uint32_t to, int protocol, int length)
{
    return (from >> 16) + (from & 0xffff) + (to >> 16) + (to & 0xffff) + protocol + length;
}

static int ping(const struct stack *stack, uint8_t *out, const uint8_t *mac)
{
    uint8_t *icmp = out + ETHERNET + 20;
    memset(icmp, 0, 16);
    icmp[0] = 8;
    put16(icmp + 2, checksum(icmp, 16, 0));
    return ipv4(stack, out, mac, stack->peer, ICMP, 16);
}

/* DHCP, RFC 2131 and 2132. A lease is never renewed: tests are over before. */

static int dhcp_message(struct stack *stack, uint8_t *out)
{
    uint8_t *udp = out + ETHERNET + 20, *bootp = udp + 8, *option = bootp + 240;
    memset(udp, 0, 8 + 240);
    put32(bootp, 0x01010600); /* a request, from Ethernet */
    put32(bootp + 4, stack->secret);
    put16(bootp + 10, 0x8000); /* answer by broadcast: we have no address yet */
    memcpy(bootp + 28, stack->mac, 6);
    put32(bootp + 236, 0x63825363);
    *option++ = 53;
    *option++ = 1;
    *option++ = stack->lease == SELECTING ? 1 : 3;
    *option++ = 55; /* asks for netmask and router */
    *option++ = 2;
    *option++ = 1;
    *option++ = 3;
    if (stack->lease == REQUESTING) {
        *option++ = 50;
        *option++ = 4;
        put32(option, stack->offered);
        option[4] = 54;
        option[5] = 4;
        put32(option + 6, stack->server);
        option += 10;
    }
    *option++ = 255;
    put16(udp, 68);
    put16(udp + 2, 67);
    put16(udp + 4, option - udp);
    return ipv4(stack, out, EVERYBODY, 0xffffffff, UDP, option - udp);
}

static int dhcp(struct stack *stack, const uint8_t *bootp, int length, uint8_t *out)
{
    uint32_t mask = 0xffffff00, router = 0, server = 0;
    int kind = 0;
    if (length < 240 || get32(bootp + 4) != stack->secret || memcmp(bootp + 28, stack->mac, 6))
        return 0;
    for (int at = 240, size; at + 1 < length && bootp[at] != 255; at += size) {
        const uint8_t *held = bootp + at + 2;
        size = bootp[at] ? 2 + bootp[at + 1] : 1; /* 0 pads */
        if (at + size > length)
            return 0;
        if (bootp[at] == 53)
            kind = held[0];
        else if (bootp[at] == 1)
            mask = get32(held);
        else if (bootp[at] == 3)
            router = get32(held);
        else if (bootp[at] == 54)
            server = get32(held);
    }
    if (kind == 2 && stack->lease == SELECTING) {
        stack->lease = REQUESTING;
        stack->offered = get32(bootp + 16);
        stack->server = server;
        return dhcp_message(stack, out);
    }
    if (kind == 5 && stack->lease == REQUESTING) {
        stack->lease = BOUND;
        stack->address = get32(bootp + 16);
        stack->gateway = router;
        for (stack->prefix = 0; mask; mask <<= 1)
            stack->prefix++;
    }
    if (kind == 6 && stack->lease == REQUESTING)
        stack->lease = SELECTING;
    return 0;
}

/* TCP, RFC 9293, as much as one page takes. Our initial sequence number is made from the
 * connection and a secret, as SYN cookies are (RFC 4987, 3.6): what the other side acknowledges
 * tells how far the connection is, and a connection with an earlier boot is known as such. */

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static uint32_t initial_sequence(const struct stack *stack, uint32_t from, uint32_t ports)
{
    uint32_t mixed = stack->secret;
    mixed = (mixed ^ from) * 0x9e3779b1;
    mixed = (mixed ^ mixed >> 15 ^ ports) * 0x85ebca77;
    return mixed ^ mixed >> 13;
}

static int tcp(const struct stack *stack, const uint8_t *in, int length, uint32_t from,
               uint8_t *out)
{
    const int header = in[12] >> 4 << 2, flags = in[13], data = length - header;
    const uint32_t sequence = get32(in + 4), acknowledged = get32(in + 8);
    const uint32_t next = sequence + data + !!(flags & SYN) + !!(flags & FIN);
    const uint32_t initial = initial_sequence(stack, from, get32(in));
    const uint32_t sent = acknowledged - initial - 1, page = stack->page.length;
    uint32_t ours = acknowledged, theirs = next;
    uint8_t *at = out + ETHERNET + 20;
    int reply = 0, held = 0;

    if (header < 20 || data < 0 || flags & RST)
        return 0;
    if (get16(in + 2) != stack->port) {
        /* 3.10.7.1: what is closed answers so that the other side believes it. */
        reply = flags & ACK ? RST : RST | ACK;
        ours = flags & ACK ? acknowledged : 0;
    } else if (flags & SYN) {
        reply = SYN | ACK;
        ours = initial;
    } else if (!(flags & ACK)) {
        return 0;
    } else if (sent > page + 1) {
        reply = RST;
    } else if (!sent && data >= 4 && !memcmp(in + length - 4, "\r\n\r\n", 4)) {
        reply = PSH | FIN | ACK;
        memcpy(at + 20, stack->page.of, page);
        held = page;
    } else if (!sent && flags & FIN) {
        reply = FIN | ACK;
    } else if (data || flags & FIN) {
        reply = ACK;
    } else {
        return 0;
    }
    put16(at, get16(in + 2));
    put16(at + 2, get16(in));
    put32(at + 4, ours);
    put32(at + 8, reply & ACK ? theirs : 0);
    at[12] = 5 << 4;
    at[13] = reply;
    put16(at + 14, 0xffff);
    put32(at + 16, 0);
    put16(at + 16, checksum(at, 20 + held, pseudo_header(stack->address, from, TCP, 20 + held)));
    return 20 + held;
}

/* Port 7 sends back what it gets (RFC 862): its losses can be counted. */
static int udp(struct stack *stack, const uint8_t *in, int length, uint32_t from, uint8_t *out)
{
    uint8_t *at = out + ETHERNET + 20;
    if (length < 8 || get16(in + 2) != 7)
        return 0;
    memcpy(at + 8, in + 8, length - 8);
    put16(at, 7);
    put16(at + 2, get16(in));
    put16(at + 4, length);
    put16(at + 6, 0);
    put16(at + 6, checksum(at, length, pseudo_header(stack->address, from, UDP, length)));
    return length;
}

static int icmp(struct stack *stack, const uint8_t *in, int length, uint32_t from, uint8_t *out)
{
    uint8_t *at = out + ETHERNET + 20;
    if (in[0] == 0 && from == stack->peer)
        stack->peer_answers = 1;
    if (length < 8 || in[0] != 8)
        return 0;
    memcpy(at, in, length);
    put32(at, 0);
    put16(at + 2, checksum(at, length, 0));
    return length;
}

static int answer_ipv4(struct stack *stack, const uint8_t *in, int length, uint8_t *out)
{
    const uint8_t *at = in + ETHERNET, *payload = at + ((at[0] & 15) << 2);
    const int total = get16(at + 2), size = total - (payload - at), protocol = at[9];
    const uint32_t from = get32(at + 12), to = get32(at + 16);
    int reply = 0;
    if (total > length - ETHERNET || size < 8 || get16(at + 6) & 0x3fff)
        return 0; /* cut short, or a fragment */
    if (stack->lease == SELECTING || stack->lease == REQUESTING)
        return protocol == UDP && get16(payload + 2) == 68
                   ? dhcp(stack, payload + 8, size - 8, out)
                   : 0;
    if (to != stack->address)
        return 0;
    if (protocol == ICMP)
        reply = icmp(stack, payload, size, from, out);
    else if (protocol == TCP && size >= 20)
        reply = tcp(stack, payload, size, from, out);
    else if (protocol == UDP)
        reply = udp(stack, payload, size, from, out);
    /* Back to where it came from, a neighbour or the router: no table of neighbours is needed. */
    return reply ? ipv4(stack, out, in + 6, from, protocol, reply) : 0;
}

static int answer_arp(struct stack *stack, const uint8_t *in, uint8_t *out)
{
    const uint8_t *at = in + ETHERNET;
    const uint32_t from = get32(at + 14);
    if (!stack->address || get32(at + 24) != stack->address)
        return 0;
    if (get16(at + 6) == 1)
        return arp(stack, out, 2, at + 8, at + 8, from);
    return from == stack->peer ? ping(stack, out, at + 8) : 0;
}

/* IPv6, RFC 8200: who has our address (RFC 4861, 7.2.4), and echo (RFC 4443, 4.2). */
static int answer_ipv6(struct stack *stack, const uint8_t *in, int length, uint8_t *out)
{
    const uint8_t *at = in + ETHERNET, *message = at + 40;
    uint8_t *reply = out + ETHERNET, *body = reply + 40;
    int size = get16(at + 4);
    uint32_t sum = 0;
    if (!stack->has_ipv6 || at[6] != ICMPV6 || size < 8 || 40 + size > length - ETHERNET)
        return 0;
    if (message[0] == 135 && size >= 24 && !memcmp(message + 8, stack->ipv6, 16)) {
        static const uint8_t advertisement[8] = {136, 0, 0, 0, 0x60}; /* solicited, override */
        memcpy(body, advertisement, 8);
        memcpy(body + 8, stack->ipv6, 16);
        body[24] = 2; /* the link-layer address, in units of eight bytes */
        body[25] = 1;
        memcpy(body + 26, stack->mac, 6);
        size = 32;
    } else if (message[0] == 128 && !memcmp(at + 24, stack->ipv6, 16)) {
        memcpy(body, message, size);
        put32(body, 0x81000000);
    } else {
        return 0;
    }
    ethernet(stack, out, in + 6, IPV6);
    put32(reply, 0x60000000);
    put16(reply + 4, size);
    reply[6] = ICMPV6;
    reply[7] = 255;
    memcpy(reply + 8, stack->ipv6, 16);
    memcpy(reply + 24, at + 8, 16);
    for (int i = 8; i < 40; i += 2)
        sum += get16(reply + i);
    put16(body + 2, checksum(body, size, sum + size + ICMPV6));
    return ETHERNET + 40 + size;
}

/* Answer a frame: return the length of what `out` has to send then, 0 where there is nothing. */
static int answer(struct stack *stack, const uint8_t *in, int length, uint8_t *out)
{
    if (length > FRAME_SIZE || (!(in[0] & 1) && memcmp(in, stack->mac, 6)))
        return 0;
    if (length >= ETHERNET + 28 && get16(in + 12) == ARP)
        return answer_arp(stack, in, out);
    if (length >= ETHERNET + 28 && get16(in + 12) == IPV4)
        return answer_ipv4(stack, in, length, out);
    if (length >= ETHERNET + 48 && get16(in + 12) == IPV6)
        return answer_ipv6(stack, in, length, out);
    return 0;
}

#endif
