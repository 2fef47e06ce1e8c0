/* Fuzzing the frames of the Kamailio socket. If a reader accepts a body, its writer writes the same bytes again. So no
 * two bodies mean the same, and no byte of a body is ignored. A beginning of an accepted body is accepted only if it is an
 * event's. */
#include "evapid/wire.h"
#include "input.h"

/* The frame written to out has this body. */
static void check_written(const unsigned char *out, size_t size, enum wire_type type, const void *body, size_t length)
{
    enum wire_type seen = WIRE_HELLO;
    size_t announced = 0;
    assert(size == WIRE_HEADER + length);
    assert(wire_header(out, size, WIRE_BODY_MAX, &seen, &announced) == WIRE_FRAME);
    assert(seen == type && announced == length);
    assert(memcmp(out + WIRE_HEADER, body, length) == 0);
}

static bool within(struct wire_text text, const void *body, size_t length)
{
    const char *first = body;
    return text.length == 0 || (text.bytes >= first && text.bytes + text.length <= first + length);
}

static bool hello(const void *body, size_t length, unsigned char *out, size_t room)
{
    struct wire_hello read;
    if (!wire_read_hello(body, length, &read))
        return false;
    assert(read.version == WIRE_VERSION && read.workers >= 1 && read.workers <= EVAPID_WORKERS_MAX);
    assert(read.worker < read.workers && read.framing <= WIRE_FRAMING_RAW);
    assert(within(read.bind_addr, body, length) && within(read.module_version, body, length));
    assert(within(read.kamailio_version, body, length));
    check_written(out, wire_write_hello(out, room, &read), WIRE_HELLO, body, length);
    return true;
}

static bool welcome(const void *body, size_t length, unsigned char *out, size_t room)
{
    struct wire_welcome read;
    if (!wire_read_welcome(body, length, &read))
        return false;
    assert(within(read.evapid_version, body, length));
    check_written(out, wire_write_welcome(out, room, &read), WIRE_WELCOME, body, length);
    return true;
}

static bool refused(const void *body, size_t length, unsigned char *out, size_t room)
{
    uint32_t version = 0;
    struct wire_text reason;
    if (!wire_read_refused(body, length, &version, &reason))
        return false;
    assert(within(reason, body, length));
    check_written(out, wire_write_refused(out, room, version, reason), WIRE_REFUSED, body, length);
    return true;
}

static bool notice(const void *body, size_t length, unsigned char *out, size_t room)
{
    uint8_t level = 0;
    struct wire_text text;
    if (!wire_read_notice(body, length, &level, &text))
        return false;
    assert(within(text, body, length));
    check_written(out, wire_write_notice(out, room, level, text), WIRE_NOTICE, body, length);
    return true;
}

static bool event(const void *body, size_t length, unsigned char *out, size_t room)
{
    struct wire_event read;
    if (!wire_read_event(body, length, &read))
        return false;
    assert(within(read.address, body, length) && within(read.tag, body, length) && within(read.message, body, length));
    assert(read.address.length <= EVAPID_ADDRESS_MAX && read.tag.length <= EVAPID_TAG_MAX);
    const size_t head = wire_write_event(out, room, WIRE_MESSAGE, &read);
    assert(head > 0 && head <= WIRE_HEADER + WIRE_EVENT_HEAD_MAX);
    if (read.message.length > 0)
        memcpy(out + head, read.message.bytes, read.message.length);
    check_written(out, head + read.message.length, WIRE_MESSAGE, body, length);
    return true;
}

static bool query(const void *body, size_t length, unsigned char *out, size_t room)
{
    struct wire_query read;
    uint32_t version = 0;
    if (!wire_read_query(body, length, &read, &version))
        return false;
    assert(version == WIRE_VERSION && (read.subject == WIRE_ASK_STATUS || read.subject == WIRE_ASK_CLIENTS));
    check_written(out, wire_write_query(out, room, &read), WIRE_QUERY, body, length);
    return true;
}

typedef bool reader(const void *body, size_t length, unsigned char *out, size_t room);

/* open: the body ends with a message of any length, so a shorter body may be good too. */
static void check_reader(reader *read, bool open, const uint8_t *bytes, size_t length)
{
    const size_t room = WIRE_HEADER + length;
    unsigned char *out = malloc(room);
    void *body = copy_of(bytes, length);
    assert(out != NULL);
    const bool good = read(body, length, out, room);
    for (size_t shorter = 0; good && !open && shorter < length; shorter++) {
        void *part = copy_of(bytes, shorter);
        assert(!read(part, shorter, out, room));
        free(part);
    }
    free(body);
    free(out);
}

/* If the room is too small for the frame, the writer writes nothing. */
static void check_room(const struct wire_hello *hello_)
{
    unsigned char whole[WIRE_HEADER + WIRE_HELLO_MAX];
    const size_t size = wire_write_hello(whole, sizeof(whole), hello_);
    for (size_t room = 0; room < size; room++) {
        unsigned char *out = malloc(room > 0 ? room : 1);
        assert(out != NULL && wire_write_hello(out, room, hello_) == 0);
        free(out);
    }
}

static void check_header(const uint8_t *bytes, size_t length)
{
    enum wire_type type = WIRE_HELLO;
    size_t body = 0;
    void *frame = copy_of(bytes, length);
    const enum wire_status status = wire_header(frame, length, WIRE_HELLO_MAX, &type, &body);
    assert((status == WIRE_MORE) == (length < WIRE_HEADER));
    if (status == WIRE_FRAME) {
        assert(type >= WIRE_HELLO && type <= WIRE_ANSWER && type == bytes[4]);
        assert(body <= WIRE_HELLO_MAX && body == (bytes[0] | (size_t)bytes[1] << 8));
        assert(bytes[2] == 0 && bytes[3] == 0 && bytes[5] == 0 && bytes[6] == 0 && bytes[7] == 0);
    }
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static reader *const readers[] = { hello, welcome, refused, notice, event, NULL, query }; /* NULL: a header */
    struct input in = input_of(bytes, length);
    const size_t which = input_below(&in, sizeof(readers) / sizeof(*readers));
    if (readers[which] == NULL) {
        check_header(in.at, input_left(&in));
        return 0;
    }
    struct wire_hello read;
    if (which == 0 && wire_read_hello(in.at, input_left(&in), &read) && input_left(&in) <= 128)
        check_room(&read);
    check_reader(readers[which], readers[which] == event, in.at, input_left(&in));
    return 0;
}
