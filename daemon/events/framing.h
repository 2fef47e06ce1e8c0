/* A framing: what is put around an event's payload on a client's connection. */
#ifndef EVAPID_FRAMING_H
#define EVAPID_FRAMING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "evapid/netstring.h"

enum framing { FRAMING_NETSTRING, FRAMING_RAW, FRAMINGS };

/* An event's payload in the ring: one part, or two around the ring's end. Other processes may write there meanwhile, so
 * it is copied before it is used. */
struct payload {
    const void *part[2];
    size_t length[2];  /* bytes of the parts */
    uint64_t taken_ns; /* when evapid took it out of the ring, by CLOCK_MONOTONIC; 0: just now */
};

static inline size_t payload_length(const struct payload *payload)
{
    return payload->length[0] + payload->length[1];
}

/* "netstring" or "raw". */
static inline const char *framing_name(enum framing framing)
{
    return framing == FRAMING_NETSTRING ? "netstring" : "raw";
}

/* The most bytes that a framing adds to a payload: a length of 20 digits, a colon, a comma. */
#define FRAMING_MAX 22U

/* Bytes of a framed payload of length bytes. */
static inline size_t framing_size(enum framing framing, size_t length)
{
    size_t digits = 1;
    if (framing == FRAMING_RAW)
        return length;
    for (size_t rest = length / 10; rest > 0; rest /= 10)
        digits++;
    return digits + 1 + length + 1;
}

/* Write the framed payload to out, which has room for framing_size bytes. */
static inline void framing_write(enum framing framing, char *out, const struct payload *payload)
{
    if (framing == FRAMING_NETSTRING)
        out += netstring_header(out, payload_length(payload));
    memcpy(out, payload->part[0], payload->length[0]);
    out += payload->length[0];
    if (payload->length[1] > 0)
        memcpy(out, payload->part[1], payload->length[1]);
    out += payload->length[1];
    if (framing == FRAMING_NETSTRING)
        *out = ',';
}

#endif
