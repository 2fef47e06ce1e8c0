#include "subscribe.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "socket.h"

#define NATS_CONNECT "CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"c\",\"version\":\"0\"}\r\n"
#define REDIS_CONFIRMED "*3\r\n$9\r\nsubscribe\r\n$5\r\n" FRAMING_CHANNEL "\r\n:1\r\n"

/* Read until text comes, which must be at the end of the server's reply. */
static bool read_up_to(int fd, const char *text)
{
    char seen[4096];
    size_t length = 0;
    while (length < sizeof(seen) - 1) {
        const ssize_t got = recv(fd, seen + length, sizeof(seen) - 1 - length, 0);
        if (got <= 0)
            break;
        length += (size_t)got;
        seen[length] = '\0';
        if (length >= strlen(text) && strcmp(seen + length - strlen(text), text) == 0)
            return true;
    }
    fprintf(stderr, "subscribing: the server said: %.*s\n", (int)length, seen);
    return false;
}

static bool say(int fd, const char *text, const char *answer)
{
    return socket_send_all(fd, text, strlen(text)) && read_up_to(fd, answer);
}

bool subscribe(int fd, enum framing_protocol protocol)
{
    if (protocol == FRAMING_REDIS)
        return say(fd, "SUBSCRIBE " FRAMING_CHANNEL "\r\n", REDIS_CONFIRMED);
    if (protocol == FRAMING_NATS)
        return say(fd, NATS_CONNECT "SUB " FRAMING_CHANNEL " 1\r\nPING\r\n", "PONG\r\n");
    return true;
}

bool subscribe_publisher(int fd)
{
    return say(fd, NATS_CONNECT "PING\r\n", "PONG\r\n");
}
