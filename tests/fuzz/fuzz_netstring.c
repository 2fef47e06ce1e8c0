/* Fuzzing the netstring parser: against a second parser written from the definition, and against itself, as its result
 * for a stream must not depend on how much of the stream has come. */
#include "evapid/netstring.h"
#include "input.h"

#include <stdio.h>

#define EVERY_CUT 512U /* inputs up to this size are cut at every byte */

/* The definition, read a second time and written as plainly as possible: white space or NUL, digits, a colon, the
 * payload, a comma. */
static enum netstring_status expected(const char *bytes, size_t len, size_t limit, struct netstring *out)
{
    size_t start = 0;
    size_t digits = 0;
    unsigned long long value = 0;
    *out = (struct netstring){ 0 };
    while (start < len && strchr(" \t\r\n", bytes[start]) != NULL)
        start++;
    out->used = start;
    const char *at = bytes + start;
    const size_t left = len - start;
    while (digits < left && at[digits] >= '0' && at[digits] <= '9') {
        if (digits == 20) {
            out->at = start + digits;
            return NETSTRING_MANY_DIGITS;
        }
        value = value * 10 + (unsigned long long)(at[digits++] - '0');
        if (value > limit || value > 9999999999ULL) {
            out->at = start;
            return NETSTRING_TOO_LONG;
        }
    }
    if (digits == left)
        return NETSTRING_MORE;
    if (at[digits] != ':' || digits == 0) {
        out->at = start + digits;
        return NETSTRING_BAD_LENGTH;
    }
    out->need = digits + 1 + (size_t)value + 1;
    if (left < out->need)
        return NETSTRING_MORE;
    if (at[out->need - 1] != ',') {
        out->at = start + out->need - 1;
        return NETSTRING_NO_COMMA;
    }
    out->payload = at + digits + 1;
    out->length = (size_t)value;
    out->used = start + out->need;
    return NETSTRING_FRAME;
}

static void check_frame(const char *bytes, const struct netstring *frame, size_t limit)
{
    char header[NETSTRING_HEADER_MAX];
    const size_t size = netstring_header(header, frame->length);
    assert(frame->length <= limit);
    assert(frame->used >= size + frame->length + 1);
    assert(frame->payload == bytes + frame->used - frame->length - 1);
    assert(memcmp(frame->payload - size, header, size) == 0); /* zeros may precede it */
    assert(frame->payload[frame->length] == ',');
}

static enum netstring_status scan(const char *bytes, size_t len, size_t limit, struct netstring *frame)
{
    struct netstring other;
    const enum netstring_status status = netstring_scan(bytes, len, limit, frame);
    assert(status == expected(bytes, len, limit, &other));
    if (status == NETSTRING_FRAME) {
        check_frame(bytes, frame, limit);
        assert(frame->used == other.used && frame->payload == other.payload && frame->length == other.length);
    } else if (status == NETSTRING_MORE) {
        assert(frame->used == other.used && frame->need == other.need);
        assert(frame->used <= len && (frame->need == 0 || frame->need > len - frame->used));
    } else {
        assert(frame->at < len && frame->at == other.at && netstring_reason(status)[0] != '\0');
    }
    return status;
}

/* Scan only the first len bytes: the result is the same, or that more is needed. */
static void check_beginning(const char *bytes, size_t len, size_t limit, enum netstring_status status,
                            const struct netstring *whole)
{
    struct netstring part;
    char *beginning = copy_of(bytes, len);
    const enum netstring_status said = scan(beginning, len, limit, &part);
    if (status == NETSTRING_FRAME)
        assert(said == (len < whole->used ? NETSTRING_MORE : NETSTRING_FRAME));
    else if (said != NETSTRING_MORE)
        assert(said == status && part.at == whole->at);
    if (said == NETSTRING_MORE && part.need > 0 && status == NETSTRING_FRAME)
        assert(part.used + part.need == whole->used);
    free(beginning);
}

static void check_stream(const char *bytes, size_t len, size_t limit)
{
    struct netstring frame;
    enum netstring_status status = NETSTRING_FRAME;
    for (size_t at = 0; at < len && status == NETSTRING_FRAME; at += frame.used) {
        status = scan(bytes + at, len - at, limit, &frame);
        for (size_t cut = 0; len - at <= EVERY_CUT && cut <= len - at; cut++)
            check_beginning(bytes + at, cut, limit, status, &frame);
    }
}

/* A frame that is written can be read. */
static void check_round_trip(const char *payload, size_t length)
{
    char *frame = malloc(NETSTRING_HEADER_MAX + length + 1);
    assert(frame != NULL);
    const size_t header = netstring_header(frame, length);
    memcpy(frame + header, payload, length);
    frame[header + length] = ',';
    char *exact = copy_of(frame, header + length + 1);
    struct netstring found;
    assert(scan(exact, header + length + 1, length, &found) == NETSTRING_FRAME);
    assert(found.length == length && found.used == header + length + 1);
    assert(length == 0 || scan(exact, header + length + 1, length - 1, &found) == NETSTRING_TOO_LONG);
    free(exact);
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const size_t limits[] = { 1, 9, 10, 100, 4096, 1 << 20, 64 << 20, SIZE_MAX };
    struct input in = input_of(bytes, length);
    const size_t limit = limits[input_below(&in, sizeof(limits) / sizeof(*limits))];
    const size_t left = input_left(&in);
    char *stream = copy_of(in.at, left);
    check_stream(stream, left, limit);
    check_round_trip(stream, left);
    free(stream);
    return 0;
}
