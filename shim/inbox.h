/* The inbox: the bytes that evapid sent, and the frames in them.
 *
 * A frame is used in place. The buffer has INBOX_ROOM bytes. It grows for one larger frame and shrinks again after
 * it. */
#ifndef EVAPI_INBOX_H
#define EVAPI_INBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "evapid/wire.h"

#define INBOX_ROOM (64U << 10)

struct inbox {
    unsigned char *bytes;
    size_t room;  /* bytes allocated; one of them is never filled */
    size_t start; /* first byte that no frame has used */
    size_t end;   /* after the last byte that was read */
};

struct inbox_frame {
    enum wire_type type;
    unsigned char *body; /* valid until the next inbox_next; the byte after it may be overwritten if it is restored */
    size_t length;
};

/* Drop the content. A zeroed inbox is empty. */
void inbox_clear(struct inbox *inbox);

/* Wait for the next frame on fd. Returns NULL, or why there will be none: inbox_closed when evapid has ended. */
extern const char inbox_closed[];
const char *inbox_next(struct inbox *inbox, int fd, struct inbox_frame *frame);

/* Has a whole frame been read already? */
bool inbox_ready(const struct inbox *inbox);

#endif
