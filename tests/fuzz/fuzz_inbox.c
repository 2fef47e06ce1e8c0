/* Fuzzing the module's end of a link: bytes from the Unix socket, cut at random places, go to shim/inbox.c. It returns
 * the frames that wire_header finds in the whole stream, with their bodies, and stops at the first malformed one. */
#include <sys/socket.h>
#include <unistd.h>

#include "inbox.h"
#include "input.h"

/* Read the frames that are complete by now. Returns why there are no more, or NULL if more may come. */
static const char *take_frames(struct inbox *inbox, int fd, const uint8_t *stream, size_t sent, size_t *at)
{
    enum wire_type type = WIRE_HELLO;
    size_t body = 0;
    struct inbox_frame frame;
    for (;;) {
        const enum wire_status status = wire_header(stream + *at, sent - *at, WIRE_BODY_MAX, &type, &body);
        if (status == WIRE_MORE || (status == WIRE_FRAME && sent - *at < WIRE_HEADER + body))
            return NULL; /* inbox_next would wait for the rest */
        const char *why = inbox_next(inbox, fd, &frame);
        if (status == WIRE_BAD) {
            assert(why != NULL);
            return why;
        }
        assert(why == NULL && frame.type == type && frame.length == body);
        assert(body == 0 || memcmp(frame.body, stream + *at + WIRE_HEADER, body) == 0);
        *at += WIRE_HEADER + body;
        unsigned char *end = frame.body + frame.length;
        const unsigned char next = *end; /* shim/link.c uses one more byte, so it must be there */
        *end = '\0';
        *end = next;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct input in = input_of(bytes, length);
    struct inbox inbox = { 0 };
    size_t cut_count = 0;
    const uint8_t *cut_bytes = input_take(&in, input_below(&in, 32), &cut_count);
    struct input cuts = input_of(cut_bytes, cut_count);
    const size_t size = input_left(&in);
    const char *why = NULL;
    size_t at = 0;
    int pair[2];
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    for (size_t sent = 0; sent < size && why == NULL;) {
        const size_t cut = input_left(&cuts) > 0 ? 1 + input_number(&cuts, 1) : 4096;
        const size_t part = cut < size - sent ? cut : size - sent;
        assert(send(pair[1], in.at + sent, part, MSG_NOSIGNAL) == (ssize_t)part);
        sent += part;
        why = take_frames(&inbox, pair[0], in.at, sent, &at);
    }
    close(pair[1]);
    if (why == NULL) {
        struct inbox_frame frame;
        assert(inbox_next(&inbox, pair[0], &frame) == inbox_closed);
    }
    close(pair[0]);
    inbox_clear(&inbox);
    return 0;
}
