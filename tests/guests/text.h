/* Lines of text, put together without a libc. What does not fit is left out. */
#ifndef TEXT_H
#define TEXT_H

#include <stdint.h>
#include <string.h>

struct text {
    int length;
    char of[2048];
};

static void add(struct text *text, const char *more)
{
    while (*more && text->length < (int)sizeof text->of - 1)
        text->of[text->length++] = *more++;
    text->of[text->length] = 0;
}

/* `digits` at least, of the base 10 or 16. */
static void add_number(struct text *text, uint64_t number, int base, int digits)
{
    char backwards[24], forwards[24];
    int count = 0, at = 0;
    while (number || count < digits) {
        backwards[count++] = "0123456789abcdef"[number % base];
        number /= base;
    }
    while (count)
        forwards[at++] = backwards[--count];
    forwards[at] = 0;
    add(text, forwards);
}

static void add_ipv4(struct text *text, uint32_t address)
{
    for (int shift = 24; shift >= 0; shift -= 8) {
        add_number(text, address >> shift & 255, 10, 1);
        add(text, shift ? "." : "");
    }
}

static void add_mac(struct text *text, const uint8_t *mac)
{
    for (int i = 0; i < 6; i++) {
        add(text, i ? ":" : "");
        add_number(text, mac[i], 16, 2);
    }
}

/* Read a dotted quad that ends at `end`; 1 where it is one. */
static int read_ipv4(const char *from, char end, uint32_t *address)
{
    *address = 0;
    for (int i = 0; i < 4; i++) {
        int byte = 0, digits = 0;
        for (; *from >= '0' && *from <= '9' && digits < 3; digits++)
            byte = 10 * byte + (*from++ - '0');
        if (!digits || byte > 255 || *from++ != (i < 3 ? '.' : end))
            return 0;
        *address = *address << 8 | byte;
    }
    return 1;
}

/* Read an address and its prefix length, as in 10.0.0.2/24; 1 where both are there. */
static int read_cidr(const char *from, uint32_t *address, int *prefix)
{
    const char *digit = strchr(from, '/');
    if (!digit || !digit[1] || !read_ipv4(from, '/', address))
        return 0;
    for (*prefix = 0; *++digit >= '0' && *digit <= '9' && *prefix < 100;)
        *prefix = 10 * *prefix + (*digit - '0');
    return !*digit && *prefix <= 32;
}

/* Read an IPv6 address, up to its end or a slash; 1 where it is one (RFC 4291, 2.2, without the
 * form that ends in a dotted quad). */
static int read_ipv6(const char *from, uint8_t *address)
{
    uint16_t groups[8] = {0};
    int count = 0, gap = -1;
    if (from[0] == ':' && from[1] == ':') {
        gap = 0;
        from += 2;
    }
    while (*from && *from != '/' && count < 8) {
        int group = 0, digits = 0;
        const char *digit;
        while (*from && (digit = strchr("0123456789abcdef", *from | (*from > '9' ? 32 : 0))) &&
               digits++ < 4) {
            group = 16 * group + (digit - "0123456789abcdef");
            from++;
        }
        if (!digits || digits > 4)
            return 0;
        groups[count++] = group;
        if (*from == ':' && from[1] == ':' && gap < 0) {
            gap = count;
            from += 2;
        } else if (*from == ':' && from[1] && from[1] != '/')
            from++;
        else
            break;
    }
    if ((*from && *from != '/') || (gap < 0 ? count != 8 : count > 7))
        return 0;
    for (int i = 0, missing = 8 - count; i < 8; i++) {
        int group = groups[i];
        if (gap >= 0 && i >= gap)
            group = i < gap + missing ? 0 : groups[i - missing];
        address[2 * i] = group >> 8;
        address[2 * i + 1] = group & 255;
    }
    return 1;
}

#endif
