/* How a MirageOS unikernel reads its arguments: joined with spaces and split again, on every target
 * (mirage's parse-argv). Needs no more of a libc than string.h's plain functions. */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include <string.h>

/* Split at white space, with quotes and backslash as escape. */
static int split(const char *text, char *out, char **words, int most)
{
    int count = 0;
    char quote = 0;
    while (*text == ' ')
        text++;
    while (*text && count < most) {
        words[count++] = out;
        for (; *text && (quote || *text != ' '); text++) {
            if (*text == '\\' && quote != '\'' && text[1])
                *out++ = *++text;
            else if (quote ? *text == quote : (*text == '"' || *text == '\''))
                quote = quote ? 0 : *text;
            else
                *out++ = *text;
        }
        *out++ = 0;
        while (*text == ' ')
            text++;
    }
    return count;
}

/* What follows `key=` in a word; NULL where the word is not of this key. */
static const char *value(const char *word, const char *key)
{
    size_t length = strlen(key);
    return !strncmp(word, key, length) && word[length] == '=' ? word + length + 1 : NULL;
}

/* Take a number that is not negative and fits an int; 1 where the word was `key=NUMBER`. */
static int number(const char *word, const char *key, int *to)
{
    const char *digit = value(word, key);
    long read = 0;
    if (!digit || !*digit)
        return 0;
    for (; *digit >= '0' && *digit <= '9' && read < 100000000; digit++)
        read = 10 * read + (*digit - '0');
    if (*digit)
        return 0;
    *to = read;
    return 1;
}

#endif
