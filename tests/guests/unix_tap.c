/* A stand-in for a MirageOS `unix` image with the direct stack: a process that opens a tap itself.
 *
 *   --interface=TAP   the tap (default tap0), made where it is missing; it gets a random MAC
 *   --mac=MAC         or this one, as a domain's vif has it
 *
 * Compiled with -DVIF it crashes where it is not told of a tap, as a domain without a vif does.
 *
 * It logs to stderr, and ends with 2 for an uncaught exception such as a tap in use.
 */
#include "tap.h"

#ifdef VIF
static const char *interface;
#else
static const char *interface = "tap0";
#endif
static const char *own_mac;

static void put(const char *text, int length)
{
    fwrite(text, 1, length, stderr);
}

static int take_own(const char *word)
{
    return (value(word, "--interface") && (interface = value(word, "--interface"))) ||
           (value(word, "--mac") && (own_mac = value(word, "--mac")));
}

static void fail(const char *what)
{
    fprintf(stderr, "Fatal error: exception Failure(\"%s %s: %s\")\n", what, interface,
            strerror(errno));
    exit(2);
}

static void plug(uint8_t *mac, uint32_t *secret)
{
    struct text text = {0};
    struct ifreq request;
    if (!interface) {
        add(&text, "no vif");
        say("ERROR", "netif", &text);
        crash();
    }
    tap = attach(interface);
    if (tap < 0)
        fail("cannot open");
    /* Only where the tap is not up yet: only root may. */
    request.ifr_flags = interface_flags(interface) | IFF_UP;
    if (!(interface_flags(interface) & IFF_UP) && ask_any(SIOCSIFFLAGS, interface, &request))
        fail("cannot set up");
    random_mac(mac);
    if (own_mac && sscanf(own_mac, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx", mac, mac + 1, mac + 2,
                          mac + 3, mac + 4, mac + 5) != 6)
        fail("no MAC for");
    *secret = get32(mac + 2) ^ getpid();
    add(&text, "plugging into ");
    add(&text, interface);
    add(&text, " with mac ");
    add_mac(&text, mac);
    say("INFO", "netif", &text);
}

static _Noreturn void end(int code)
{
    exit(code);
}

static _Noreturn void crash(void)
{
    abort();
}

int main(int argc, char **argv)
{
    static const struct built built = BUILT;
    (void)argc;
    guest(&built, join(argv + 1));
}
