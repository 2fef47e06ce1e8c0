/* An event of a given size on the wire of each system, byte by byte. All events of a run have the same size, so a
 * template serves for all of them: only the number in it changes. */
#ifndef LOAD_FRAMING_H
#define LOAD_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAMING_DIGITS 16U /* digits of the number with which an event begins; the first is 0 */
#define FRAMING_CHANNEL "bench"

enum framing_protocol { FRAMING_NETSTRING, FRAMING_RAW, FRAMING_REDIS, FRAMING_NATS };

enum framing_side {
    FRAMING_EVENT,   /* as a subscriber receives it */
    FRAMING_PUBLISH, /* as a publisher sends it (netstring and raw: the same bytes) */
};

struct framing {
    enum framing_protocol protocol;
    size_t head, size, bytes; /* bytes before the payload, of the payload, and of the whole frame */
    char *frame;              /* the template */
};

/* Returns false if the protocol is unknown, or if there is no memory. */
bool framing_make(struct framing *framing, const char *protocol, enum framing_side side, size_t size);

/* Write the event's number into the template. A payload too short for a number stays as it is. */
void framing_number(struct framing *framing, uint64_t number);

#endif
