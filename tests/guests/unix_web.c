/* A stand-in for a MirageOS `unix` image with the socket stack, for tests and the demo.
 *
 * It takes MirageOS-style arguments (joined and split again, as mirage/parse-argv does), logs to
 * stderr as MirageOS does, answers HTTP, and ends with MirageOS's exit codes: 64 for an argument it
 * does not take, 63 for --help, 2 for an uncaught exception such as a port in use.
 *
 *   --ipv4=ADDRESS/LEN   address of the socket stack (default: every address)
 *   --port=N             TCP port (default 8080); --http-port=N is the same
 *   --hello=TEXT         what the page says (default: PAGE, given when it is compiled, or what is
 *                        then in the file PAGE_FILE)
 *   --logs=...           taken, and of no effect
 *   --delay=MS           wait before the port is opened
 *   --crash-after=MS     call abort() that much later
 *   --exit=N             exit with N instead of serving
 *   --status=N           answer with this HTTP status (default 200)
 *   --deaf               ignore SIGTERM
 *   --chatter=N          print N lines of a hundred bytes at the start
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "arguments.h"

#ifdef PAGE_FILE
__asm__(".section .rodata\npage: .incbin \"" PAGE_FILE "\"\n.byte 0\n.text");
extern const char page[];
#define PAGE page
#endif

#ifndef PAGE
#define PAGE "hello"
#endif

/* Compiled with -DBROKEN it fails as an image with a bug does: an uncaught exception at the start. */
#ifdef BROKEN
#define EXIT_CODE 2
#else
#define EXIT_CODE -1
#endif

static const char *hello = PAGE;
static char address[64] = "0.0.0.0";
static int port = 8080, delay_ms, crash_after_ms = -1, exit_code = EXIT_CODE, status = 200, chatter;

static void say(const char *level, const char *text)
{
    struct timespec now;
    char date[32];
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", gmtime(&now.tv_sec));
    fprintf(stderr, "%s-00:00: %s [application] %s\n", date, level, text);
}

static void take(const char *word)
{
    if (!strcmp(word, "--help")) {
        puts("a stand-in for a MirageOS unix image");
        exit(63);
    }
    if (!strncmp(word, "--ipv4=", 7)) {
        const char *slash = strchr(word, '/');
        struct in_addr parsed;
        if (slash && slash - word - 7 < (long)sizeof address) {
            memcpy(address, word + 7, slash - word - 7);
            address[slash - word - 7] = 0;
            if (inet_pton(AF_INET, address, &parsed) == 1)
                return;
        }
    } else if (!strncmp(word, "--hello=", 8)) {
        hello = strdup(word + 8);
        return;
    } else if (!strncmp(word, "--logs=", 7)) {
        return;
    } else if (!strcmp(word, "--deaf")) {
        signal(SIGTERM, SIG_IGN);
        return;
    } else if (number(word, "--port", &port) || number(word, "--http-port", &port) ||
               number(word, "--delay", &delay_ms) ||
               number(word, "--crash-after", &crash_after_ms) || number(word, "--exit", &exit_code) ||
               number(word, "--status", &status) || number(word, "--chatter", &chatter)) {
        return;
    }
    fprintf(stderr, "unikernel: unknown option '%s'.\n", word);
    exit(64);
}

static void answer(int client)
{
    static char reply[65536];
    char request[2048];
    struct pollfd wait = {client, POLLIN, 0};
    if (poll(&wait, 1, 1000) == 1 && read(client, request, sizeof request) > 0) {
        int length = snprintf(reply, sizeof reply,
                              "HTTP/1.1 %d -\r\nContent-Type: text/%s\r\nContent-Length: %zu\r\n"
                              "Connection: close\r\n\r\n%s\n",
                              status, *hello == '<' ? "html" : "plain", strlen(hello) + 1, hello);
        if (write(client, reply, length) != length)
            say("WARN", "short write");
    }
    close(client);
}

int main(int argc, char **argv)
{
    static char joined[65536], pieces[65536];
    char *words[256], line[160];
    struct sockaddr_in local = {.sin_family = AF_INET};
    struct timespec start, now;
    int listener, one = 1, count;

    for (int i = 1; i < argc; i++) {
        strncat(joined, argv[i], sizeof joined - strlen(joined) - 2);
        strcat(joined, " ");
    }
    count = split(joined, pieces, words, 256);
    for (int i = 0; i < count; i++)
        take(words[i]);
    for (int i = 0; i < chatter; i++)
        fprintf(stderr, "%06d %0*d\n", i, 92, 0);
    if (delay_ms)
        usleep(delay_ms * 1000);
    if (exit_code >= 0) {
        say("ERROR", "Fatal error: exception Failure(\"asked to exit\")");
        exit(exit_code);
    }
    clock_gettime(CLOCK_MONOTONIC, &start);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    local.sin_port = htons(port);
    inet_pton(AF_INET, address, &local.sin_addr);
    if (bind(listener, (struct sockaddr *)&local, sizeof local) || listen(listener, 64)) {
        fprintf(stderr, "Fatal error: exception Unix.Unix_error(Unix.%s, \"bind\", \"\")\n",
                errno == EADDRINUSE ? "EADDRINUSE" : strerror(errno));
        exit(2);
    }
    snprintf(line, sizeof line, "listening on %s:%d", address, port);
    say("INFO", line);
    for (;;) {
        struct pollfd wait = {listener, POLLIN, 0};
        poll(&wait, 1, 50);
        if (wait.revents & POLLIN)
            answer(accept(listener, NULL, NULL));
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (crash_after_ms >= 0 && (now.tv_sec - start.tv_sec) * 1000 +
                                       (now.tv_nsec - start.tv_nsec) / 1000000 >= crash_after_ms)
            abort();
    }
}
