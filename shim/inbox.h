/* The inbox: bytes that came from evapid, and the frames that they make.
 *
 * Frames are used where they lie. The buffer is INBOX_ROOM bytes, grows to hold one larger frame whole, and is given back
 * when that frame is done. */
#ifndef EVAPI_INBOX_H
#define EVAPI_INBOX_H

#include <stdbool.h>
#include <stddef.h>

#include "evapid/wire.h"

#define INBOX_ROOM (64U << 10)

struct inbox {
    unsigned char *bytes;
    size_t room;  /* bytes that there is memory for; one of them is never filled */
    size_t start; /* first byte that no frame has used */
    size_t end;   /* behind the last byte that was read */
};

struct inbox_frame {
    enum wire_type type;
    unsigned char *body; /* until the next inbox_next; the byte behind it may be written too, and put back */
    size_t length;
};

/* Forget what is there. An inbox that is all zero is empty. */
void inbox_clear(struct inbox *inbox);

/* Wait for the next frame on fd. Returns NULL, or why there will be none: inbox_closed when evapid has ended. */
extern const char inbox_closed[];
const char *inbox_next(struct inbox *inbox, int fd, struct inbox_frame *frame);

/* Is a whole frame there already? */
bool inbox_ready(const struct inbox *inbox);

#endif
