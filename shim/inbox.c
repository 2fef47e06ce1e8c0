/* Reads frames from evapid's socket. Owns the buffer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "inbox.h"

const char inbox_closed[] = "it has closed the connection";

void inbox_clear(struct inbox *inbox)
{
    free(inbox->bytes);
    *inbox = (struct inbox){ 0 };
}

static enum wire_status header(const struct inbox *inbox, enum wire_type *type, size_t *body)
{
    if (inbox->bytes == NULL)
        return WIRE_MORE;
    return wire_header(inbox->bytes + inbox->start, inbox->end - inbox->start, WIRE_BODY_MAX, type, body);
}

bool inbox_ready(const struct inbox *inbox)
{
    enum wire_type type;
    size_t body;
    return header(inbox, &type, &body) == WIRE_FRAME && inbox->end - inbox->start >= WIRE_HEADER + body;
}

/* Move the content to the start of a buffer with room for need bytes and one more. */
static bool make_room(struct inbox *inbox, size_t need)
{
    const size_t kept = inbox->end - inbox->start;
    const size_t room = need < INBOX_ROOM ? INBOX_ROOM : need + 1;
    if (kept > 0)
        memmove(inbox->bytes, inbox->bytes + inbox->start, kept);
    inbox->start = 0;
    inbox->end = kept;
    if (room == inbox->room)
        return true;
    unsigned char *bytes = realloc(inbox->bytes, room);
    if (bytes == NULL)
        return false;
    inbox->bytes = bytes;
    inbox->room = room;
    return true;
}

static const char *fill(struct inbox *inbox, int fd, size_t need)
{
    /* The content is part of one frame, so it is shorter than need and always fits. */
    if (!make_room(inbox, need))
        return "there is no memory for a frame";
    ssize_t got;
    do
        got = recv(fd, inbox->bytes + inbox->end, inbox->room - 1 - inbox->end, 0);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return inbox_closed;
    if (got < 0)
        return strerror(errno);
    inbox->end += (size_t)got;
    return NULL;
}

const char *inbox_next(struct inbox *inbox, int fd, struct inbox_frame *frame)
{
    for (;;) {
        size_t need = WIRE_HEADER;
        switch (header(inbox, &frame->type, &frame->length)) {
        case WIRE_BAD: return "it sent a malformed frame";
        case WIRE_MORE: break;
        case WIRE_FRAME:
            need += frame->length;
            if (inbox->end - inbox->start < need)
                break;
            frame->body = inbox->bytes + inbox->start + WIRE_HEADER;
            inbox->start += need;
            return NULL;
        }
        const char *why = fill(inbox, fd, need);
        if (why != NULL)
            return why;
    }
}
