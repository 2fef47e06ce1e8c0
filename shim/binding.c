/* Reads bind_addr and resolves a name. */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "binding.h"

#define HOST_MAX 256 /* a DNS name and its NUL */

/* The two parts of the text. */
struct place {
    char host[HOST_MAX];
    char port[8];
    bool bracketed;
};

static const char *read_port(const char *text, char port[8])
{
    while (*text == ' ')
        text++;
    unsigned long number = 0;
    const size_t digits = strspn(text, "0123456789");
    if (digits == 0 || text[digits] != '\0' || digits > 9)
        return "the port is not a number";
    number = strtoul(text, NULL, 10);
    if (number == 0 || number > 65535)
        return "the port is not from 1 to 65535";
    snprintf(port, 8, "%lu", number);
    return NULL;
}

static const char *split(const char *text, struct place *place)
{
    place->bracketed = text[0] == '[';
    const char *end = place->bracketed ? strchr(text, ']') : text + strcspn(text, ":");
    if (end == NULL || (place->bracketed && end[1] != '\0' && end[1] != ':'))
        return "the brackets are not those of an IPv6 address";
    if (!place->bracketed && *end == ':' && strchr(end + 1, ':') != NULL)
        return "it has several colons; an IPv6 address is written in brackets";
    const size_t length = (size_t)(end - text) - place->bracketed;
    if (length == 0)
        return "it names no address";
    if (length >= HOST_MAX)
        return "the name is too long";
    memcpy(place->host, text + place->bracketed, length);
    place->host[length] = '\0';
    const char *port = end + place->bracketed;
    snprintf(place->port, sizeof(place->port), "%d", BINDING_PORT);
    if (*port == '\0')
        return strspn(place->host, "0123456789") == length ? "it is a port without an address" : NULL;
    return read_port(port + 1, place->port);
}

/* ---- addresses ------------------------------------------------------------------------------------------------------ */

static void write_address(const struct addrinfo *found, const char *port, char out[BINDING_TEXT])
{
    char host[EVAPID_ADDRESS_MAX];
    out[0] = '\0';
    if (getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST) == 0)
        snprintf(out, BINDING_TEXT, found->ai_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* List the addresses of a host, one a line, in the system's order of preference. Returns as getaddrinfo does. */
static int list_addresses(const struct place *place, int flags, char *out, size_t room)
{
    const struct addrinfo hints = { .ai_family = place->bracketed ? AF_INET6 : AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = flags };
    struct addrinfo *first = NULL;
    size_t used = 0;
    out[0] = '\0';
    const int failed = getaddrinfo(place->host, place->port, &hints, &first);
    if (failed != 0)
        return failed;
    for (const struct addrinfo *found = first; found != NULL; found = found->ai_next) {
        char address[BINDING_TEXT];
        write_address(found, place->port, address);
        if (address[0] != '\0' && used + strlen(address) + 2 <= room)
            used += (size_t)snprintf(out + used, room - used, "%s\n", address);
    }
    freeaddrinfo(first);
    return 0;
}

static bool has_address(const struct binding *binding, const char *address)
{
    const size_t length = strlen(address);
    for (const char *at = strstr(binding->all, address); at != NULL; at = strstr(at + 1, address))
        if ((at == binding->all || at[-1] == ' ') && (at[length] == ',' || at[length] == '\0'))
            return true;
    return false;
}

/* Store a list without duplicates: /etc/hosts may name an address several times. */
static void take_addresses(struct binding *binding, char *list)
{
    char *rest = NULL;
    for (const char *at = strtok_r(list, "\n", &rest); at != NULL; at = strtok_r(NULL, "\n", &rest)) {
        const size_t used = strlen(binding->all);
        if (has_address(binding, at) || used + strlen(at) + 3 > sizeof(binding->all))
            continue;
        if (binding->addresses++ == 0)
            snprintf(binding->at, sizeof(binding->at), "%s", at);
        snprintf(binding->all + used, sizeof(binding->all) - used, "%s%s", used > 0 ? ", " : "", at);
    }
}

/* ---- names ---------------------------------------------------------------------------------------------------------- */

/* Runs in the separate process: writes getaddrinfo's result, then the list. */
static void look_up(const struct place *place, int out)
{
    char list[BINDING_ALL];
    const int failed = list_addresses(place, 0, list, sizeof(list));
    if (write(out, &failed, sizeof(failed)) == (ssize_t)sizeof(failed) && failed == 0)
        _exit(write(out, list, strlen(list)) < 0);
    _exit(0);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Read to the end or until the time is over. Returns the bytes read, or -1 if the end was not reached. */
static ssize_t read_all(int in, char *bytes, size_t room)
{
    const uint64_t until_ms = now_ms() + BINDING_LOOK_UP_MS;
    size_t used = 0;
    for (;;) {
        struct pollfd input = { .fd = in, .events = POLLIN };
        const uint64_t now = now_ms();
        const int ready = now < until_ms ? poll(&input, 1, (int)(until_ms - now)) : 0;
        if (ready == 0)
            return -1;
        const ssize_t got = ready > 0 ? read(in, bytes + used, room - used) : -1;
        if (got == 0)
            return (ssize_t)used;
        if (got < 0 && errno != EINTR)
            return -1;
        used += got > 0 ? (size_t)got : 0;
    }
}

static const char *ask(const struct place *place, char *list, size_t room)
{
    struct {
        int failed;
        char list[BINDING_ALL];
    } answer;
    int ends[2];
    if (pipe(ends) != 0)
        return strerror(errno);
    const pid_t child = fork();
    if (child == 0)
        look_up(place, ends[1]);
    close(ends[1]);
    const ssize_t got = child > 0 ? read_all(ends[0], (char *)&answer, sizeof(answer)) : 0;
    close(ends[0]);
    if (child < 0)
        return strerror(errno);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    if (got < (ssize_t)sizeof(answer.failed))
        return "no name server has answered in time";
    if (answer.failed != 0)
        return gai_strerror(answer.failed);
    snprintf(list, room, "%.*s", (int)((size_t)got - sizeof(answer.failed)), answer.list);
    return NULL;
}

const char *binding_read(const char *text, struct binding *binding)
{
    struct place place;
    char list[BINDING_ALL];
    *binding = (struct binding){ .is_name = false };
    if (text[0] == '\0')
        return NULL;
    const char *why = split(text, &place);
    if (why != NULL)
        return why;
    const int failed = list_addresses(&place, AI_NUMERICHOST, list, sizeof(list));
    if (failed != 0 && place.bracketed)
        return "it is not an IPv6 address in the brackets";
    binding->is_name = failed != 0;
    why = failed != 0 ? ask(&place, list, sizeof(list)) : NULL;
    if (why == NULL)
        take_addresses(binding, list);
    return why;
}
