/* What string.h declares and a program without a libc needs. */
#ifndef FREESTANDING_H
#define FREESTANDING_H

#include <stdint.h>
#include <string.h>

/* The compiler calls these, and so do we. */

void *memcpy(void *to, const void *from, size_t length)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
    return start;
}

void *memset(void *to, int byte, size_t length)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(length) : "a"(byte) : "memory");
    return start;
}

int memcmp(const void *left, const void *right, size_t length)
{
    const uint8_t *one = left, *other = right;
    for (; length; one++, other++, length--)
        if (*one != *other)
            return *one - *other;
    return 0;
}

size_t strlen(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

int strncmp(const char *left, const char *right, size_t length)
{
    for (; length && *left && *left == *right; left++, right++)
        length--;
    return length ? (uint8_t)*left - (uint8_t)*right : 0;
}

int strcmp(const char *left, const char *right)
{
    return strncmp(left, right, -1);
}

char *strchr(const char *text, int character)
{
    for (; *text != character; text++)
        if (!*text)
            return NULL;
    return (char *)text;
}

#endif
