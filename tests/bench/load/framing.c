#include "framing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = { "netstring", "raw", "redis", "nats" };

/* Write what precedes a payload of size bytes. Returns its length. */
static size_t head_write(enum framing_protocol protocol, enum framing_side side, size_t size, char *out, size_t room)
{
    const bool event = side == FRAMING_EVENT;
    int length = 0;
    if (protocol == FRAMING_NETSTRING)
        length = snprintf(out, room, "%zu:", size);
    else if (protocol == FRAMING_REDIS)
        length = snprintf(out, room, "*3\r\n$7\r\n%s\r\n$%zu\r\n%s\r\n$%zu\r\n", event ? "message" : "PUBLISH",
                          strlen(FRAMING_CHANNEL), FRAMING_CHANNEL, size);
    else if (protocol == FRAMING_NATS)
        length = snprintf(out, room, event ? "MSG %s 1 %zu\r\n" : "PUB %s %zu\r\n", FRAMING_CHANNEL, size);
    return (size_t)length;
}

static const char *tail_of(enum framing_protocol protocol)
{
    static const char *const tails[] = { ",", "", "\r\n", "\r\n" };
    return tails[protocol];
}

static bool protocol_named(const char *name, enum framing_protocol *protocol)
{
    for (unsigned i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(names[i], name) == 0) {
            *protocol = (enum framing_protocol)i;
            return true;
        }
    fprintf(stderr, "%s: not netstring, raw, redis or nats\n", name);
    return false;
}

bool framing_make(struct framing *framing, const char *protocol, enum framing_side side, size_t size)
{
    char head[128];
    if (!protocol_named(protocol, &framing->protocol))
        return false;
    const char *tail = tail_of(framing->protocol);
    framing->size = size;
    framing->head = head_write(framing->protocol, side, size, head, sizeof(head));
    framing->bytes = framing->head + size + strlen(tail);
    framing->frame = malloc(framing->bytes + 1);
    if (framing->frame == NULL)
        return false;
    memcpy(framing->frame, head, framing->head);
    memset(framing->frame + framing->head, 'x', size);
    memcpy(framing->frame + framing->head + size, tail, strlen(tail) + 1);
    framing_number(framing, 0);
    return true;
}

void framing_number(struct framing *framing, uint64_t number)
{
    if (framing->size < FRAMING_DIGITS)
        return;
    char *digits = framing->frame + framing->head;
    for (unsigned i = FRAMING_DIGITS; i-- > 0; number /= 10)
        digits[i] = (char)('0' + number % 10);
}
