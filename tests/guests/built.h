/* What a guest is when it is compiled; its arguments may say otherwise. */
#ifndef BUILT_H
#define BUILT_H

#include <stdint.h>

#define PAGE_SIZE 1200

#ifndef PAGE
#define PAGE "hello"
#endif
#ifndef ADDRESS
#define ADDRESS "10.0.0.2/24"
#endif
#ifndef DHCP
#define DHCP 0
#endif
/* Compiled with -DBROKEN it fails as an image with a bug does: an uncaught exception. */
#ifdef BROKEN
#define EXIT_CODE 2
#else
#define EXIT_CODE -1
#endif

struct built {
    char page[PAGE_SIZE], address[32];
    int32_t dhcp, exit_code;
};

#define BUILT {PAGE, ADDRESS, DHCP, EXIT_CODE}

#endif
