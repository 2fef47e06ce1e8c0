/* Frames: made once, counted, freed. */
#include "frame.h"

#include <stdlib.h>

struct frame *frame_new(size_t length)
{
    struct frame *frame = malloc(sizeof(*frame) + NETSTRING_HEADER_MAX + length + 1);
    if (frame == NULL)
        return NULL;
    char header[NETSTRING_HEADER_MAX];
    const size_t size = netstring_header(header, length);
    frame->refs = 1;
    frame->header = (unsigned)size;
    frame->length = length;
    memcpy(frame->bytes + NETSTRING_HEADER_MAX - size, header, size);
    frame->bytes[NETSTRING_HEADER_MAX + length] = ',';
    return frame;
}

void frame_unref(struct frame *frame)
{
    if (--frame->refs == 0)
        free(frame);
}
