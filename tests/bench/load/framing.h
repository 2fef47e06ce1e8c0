/* How an event of a given size looks on the wire of each system, byte by byte. All events of a run have the same size, so
 * that every frame has: a template, of which only the number changes. */
#ifndef LOAD_FRAMING_H
#define LOAD_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAMING_DIGITS 16U /* an event begins with its number, from 0, in so many digits */
#define FRAMING_CHANNEL "bench"

enum framing_protocol { FRAMING_NETSTRING, FRAMING_RAW, FRAMING_REDIS, FRAMING_NATS };

enum framing_side {
    FRAMING_EVENT,   /* as a subscriber gets it */
    FRAMING_PUBLISH, /* as a publisher sends it (netstring and raw: the same) */
};

struct framing {
    enum framing_protocol protocol;
    size_t head, size, bytes; /* bytes before the payload, of the payload, and of the whole frame */
    char *frame;              /* the template */
};

/* False when the protocol is unknown, or size is less than FRAMING_DIGITS and numbers are asked for. */
bool framing_make(struct framing *framing, const char *protocol, enum framing_side side, size_t size);

/* Write the event's number into the template; a payload that is too short for it stays as it is. */
void framing_number(struct framing *framing, uint64_t number);

#endif
