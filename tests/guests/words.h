/* What a guest without libc says: a line, of three parts. */
#ifndef WORDS_H
#define WORDS_H

#include "guest.h"

static void print(const char *before, const char *name, const char *after)
{
    struct text text = {0};
    add(&text, before);
    add(&text, name);
    add(&text, after);
    line(&text);
}

#endif
