/* What guests that are Linux processes share: the tap, the clock, the console's dates. */
#ifndef TAP_H
#define TAP_H

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

static int tap = -1;

/* What is asked about an interface, by its name; -1 with errno where no interface is called so. */
static int ask(int file, unsigned long what, const char *name, struct ifreq *request)
{
    const size_t length = strlen(name);
    if (length >= IFNAMSIZ) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(request->ifr_name, name, length + 1);
    return ioctl(file, what, request);
}

static int ask_any(unsigned long what, const char *name, struct ifreq *request)
{
    const int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int result = ask(any, what, name, request), error = errno;
    close(any);
    errno = error;
    return result;
}

/* Attach to the tap of this name, which is made where it is missing and we may; -1 with errno. */
static int attach(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    const int file = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (file >= 0 && ask(file, TUNSETIFF, name, &request) < 0) {
        const int error = errno;
        close(file);
        errno = error;
        return -1;
    }
    return file;
}

/* The flags of an interface; -1 with errno where it is missing. */
static int interface_flags(const char *name)
{
    struct ifreq request = {0};
    return ask_any(SIOCGIFFLAGS, name, &request) < 0 ? -1 : (uint16_t)request.ifr_flags;
}

static void random_mac(uint8_t *mac)
{
    if (getrandom(mac, 6, 0) != 6)
        abort();
    mac[0] = (mac[0] & 0xfe) | 0x02; /* one host's, locally administered (IEEE 802) */
}

static void add_date(struct text *text)
{
    struct timespec now;
    char date[32];
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S-00:00", gmtime(&now.tv_sec));
    add(text, date);
}

static uint64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

static void rest(int milliseconds)
{
    nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000l}, NULL);
}

static int receive(uint8_t *frame)
{
    struct pollfd wait = {tap, POLLIN, 0};
    int length;
    if (poll(&wait, 1, 20) != 1)
        return 0;
    length = read(tap, frame, 2048);
    return length > 0 ? length : 0;
}

static void transmit(const uint8_t *frame, int length)
{
    /* A frame that a tap does not take is lost, as on any network. */
    if (write(tap, frame, length) != length)
        return;
}

/* The arguments of a process, joined. */
static char *join(char **arguments)
{
    static char joined[65536];
    for (; *arguments; arguments++) {
        strncat(joined, *arguments, sizeof joined - strlen(joined) - 2);
        strcat(joined, " ");
    }
    return joined;
}

#endif
