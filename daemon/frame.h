/* A frame: one event on its way to clients, shared by all who get it.
 *
 * The payload lies between room for a netstring's length and its comma, both written when the frame is made. So one
 * allocation and one copy serve every framing, each of which is a span of the same bytes. A frame never changes once its
 * payload is filled in. */
#ifndef EVAPID_FRAME_H
#define EVAPID_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "evapid/netstring.h"

enum framing { FRAMING_NETSTRING, FRAMING_RAW };

struct frame {
    unsigned refs;
    unsigned header; /* bytes of the netstring's length and colon */
    size_t length;   /* bytes of the payload */
    char bytes[];    /* NETSTRING_HEADER_MAX, payload, comma */
};

/* A frame whose payload of length bytes is still to be filled in (frame_payload); one reference, the caller's. NULL when
 * there is no memory. */
struct frame *frame_new(size_t length);

static inline struct frame *frame_ref(struct frame *frame)
{
    frame->refs++;
    return frame;
}

/* Give a reference back; the last one frees. */
void frame_unref(struct frame *frame);

static inline char *frame_payload(struct frame *frame)
{
    return frame->bytes + NETSTRING_HEADER_MAX;
}

/* What is sent in that framing: its first byte. */
static inline const char *frame_start(const struct frame *frame, enum framing framing)
{
    return frame->bytes + NETSTRING_HEADER_MAX - (framing == FRAMING_NETSTRING ? frame->header : 0);
}

/* What is sent in that framing: its bytes. */
static inline size_t frame_size(const struct frame *frame, enum framing framing)
{
    return frame->length + (framing == FRAMING_NETSTRING ? frame->header + 1 : 0);
}

/* "netstring" or "raw". */
static inline const char *framing_name(enum framing framing)
{
    return framing == FRAMING_NETSTRING ? "netstring" : "raw";
}

#endif
