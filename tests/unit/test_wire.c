/* Wire frames: the bytes of each, what a reader accepts, and what neither a short buffer nor a bad body can do.
 *
 * Bodies are read where the memory behind their last byte cannot be read, and written in front of bytes that must not
 * change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "evapid/wire.h"

/* ---- memory that ends where it is said to end -------------------------------------------------------------------- */

#define WINDOW ((size_t)1 << 17)

static unsigned char *window_end; /* first byte that cannot be read */

static int open_window(void **state)
{
    (void)state;
    unsigned char *window = mmap(NULL, WINDOW + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (window == MAP_FAILED)
        return -1;
    window_end = window + WINDOW;
    return mprotect(window_end, 4096, PROT_NONE);
}

static int close_window(void **state)
{
    (void)state;
    return munmap(window_end - WINDOW, WINDOW + 4096);
}

/* A copy of bytes that ends where the window ends. */
static const unsigned char *at_the_end(const void *bytes, size_t len)
{
    assert_true(len <= WINDOW);
    memcpy(window_end - len, bytes, len);
    return window_end - len;
}

/* ---- one frame of each kind, and its bytes ----------------------------------------------------------------------- */

#define TEXT(s) ((struct wire_text){ (s), sizeof(s) - 1 })

static const struct wire_hello hello = {
    .version = WIRE_VERSION,
    .instance = 0x1122334455667788U,
    .pid = 0x01020304,
    .worker = 0x0001,
    .workers = 0x0080,
    .max_clients = 0xa0b0c0d0,
    .framing = WIRE_FRAMING_RAW,
    .bind_addr = { "[::1]:8448", 10 },
    .module_version = { "0.1", 3 },
    .kamailio_version = { "5.6.3", 5 },
};

static const unsigned char hello_bytes[] = "\x39\0\0\0\x01\0\0\0"
                                           "evapid\0\0"
                                           "\x01\0\0\0"
                                           "\x88\x77\x66\x55\x44\x33\x22\x11"
                                           "\x04\x03\x02\x01"
                                           "\x01\0"
                                           "\x80\0"
                                           "\xd0\xc0\xb0\xa0"
                                           "\x01"
                                           "\x0a\0[::1]:8448"
                                           "\x03\0"
                                           "0.1"
                                           "\x05\0"
                                           "5.6.3";

static const struct wire_welcome welcome = {
    .version = 0x01020304, .session = 0x05060708, .pid = 0x090a0b0c, .evapid_version = { "0.1.0", 5 }
};

static const unsigned char welcome_bytes[] = "\x13\0\0\0\x02\0\0\0"
                                             "\x04\x03\x02\x01"
                                             "\x08\x07\x06\x05"
                                             "\x0c\x0b\x0a\x09"
                                             "\x05\0"
                                             "0.1.0";

static const struct wire_text reason = { "attached: 4711", 14 };

static const unsigned char refused_bytes[] = "\x14\0\0\0\x03\0\0\0"
                                             "\x01\0\0\0"
                                             "\x0e\0"
                                             "attached: 4711";

static const unsigned char notice_bytes[] = "\x11\0\0\0\x04\0\0\0"
                                            "\x01"
                                            "\x0e\0"
                                            "attached: 4711";

static const struct wire_event event = {
    .sequence = 0x8877665544332211U,
    .connection = 0xfedcba98,
    .port = 0xabcd,
    .address = { "127.0.0.1", 9 },
    .tag = { "ta\0g", 4 },
    .message = { "\0hello", 6 },
};

static const unsigned char event_head[] = "\x11\x22\x33\x44\x55\x66\x77\x88"
                                          "\x98\xba\xdc\xfe"
                                          "\xcd\xab"
                                          "\x09"
                                          "127.0.0.1"
                                          "\x04ta\0g";

/* A string's bytes but for its last NUL. */
#define BYTES(array) (array), (sizeof(array) - 1)

/* The kinds of frames that have nothing behind their body, to be written and read alike. */
struct kind {
    enum wire_type type;
    const unsigned char *bytes;
    size_t size;
};

static const struct kind kinds[] = {
    { WIRE_HELLO, BYTES(hello_bytes) },
    { WIRE_WELCOME, BYTES(welcome_bytes) },
    { WIRE_REFUSED, BYTES(refused_bytes) },
    { WIRE_NOTICE, BYTES(notice_bytes) },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static size_t write_kind(enum wire_type type, void *out, size_t room)
{
    switch (type) {
    case WIRE_HELLO: return wire_write_hello(out, room, &hello);
    case WIRE_WELCOME: return wire_write_welcome(out, room, &welcome);
    case WIRE_REFUSED: return wire_write_refused(out, room, WIRE_VERSION, reason);
    case WIRE_NOTICE: return wire_write_notice(out, room, WIRE_NOTICE_WARNING, reason);
    default: return wire_write_event(out, room, type, &event);
    }
}

static void assert_within(struct wire_text text, const unsigned char *body, size_t length)
{
    const unsigned char *at = (const unsigned char *)text.bytes;
    if (text.length != 0)
        assert_true(at >= body && text.length <= length && (size_t)(at - body) <= length - text.length);
}

/* Read body as type says. What a reader accepts lies within the body. */
static bool read_kind(enum wire_type type, const unsigned char *body, size_t length)
{
    struct wire_hello h;
    struct wire_welcome w;
    struct wire_event e;
    struct wire_text text = { NULL, 0 };
    uint32_t version;
    uint8_t level;
    bool good;
    switch (type) {
    case WIRE_HELLO:
        if (!wire_read_hello(body, length, &h))
            return false;
        assert_within(h.bind_addr, body, length);
        assert_within(h.module_version, body, length);
        assert_within(h.kamailio_version, body, length);
        return true;
    case WIRE_WELCOME:
        good = wire_read_welcome(body, length, &w);
        text = w.evapid_version;
        break;
    case WIRE_REFUSED: good = wire_read_refused(body, length, &version, &text); break;
    case WIRE_NOTICE: good = wire_read_notice(body, length, &level, &text); break;
    default:
        if (!wire_read_event(body, length, &e))
            return false;
        assert_within(e.address, body, length);
        assert_within(e.tag, body, length);
        text = e.message;
        good = true;
        break;
    }
    if (good)
        assert_within(text, body, length);
    return good;
}

static void assert_text(struct wire_text text, struct wire_text expected)
{
    assert_int_equal(text.length, expected.length);
    assert_memory_equal(text.bytes, expected.bytes, expected.length);
}

/* ---- the bytes --------------------------------------------------------------------------------------------------- */

static void test_the_bytes_of_each_frame(void **state)
{
    (void)state;
    unsigned char out[256];
    for (size_t i = 0; i < KINDS; i++) {
        assert_int_equal(write_kind(kinds[i].type, out, sizeof(out)), kinds[i].size);
        assert_memory_equal(out, kinds[i].bytes, kinds[i].size);
        assert_int_equal(kinds[i].bytes[0], kinds[i].size - WIRE_HEADER);
    }
}

/* An event's frame is written up to its message, whose bytes its header already counts. */
static void test_the_bytes_of_an_event(void **state)
{
    (void)state;
    static const enum wire_type types[] = { WIRE_NEW, WIRE_CLOSED, WIRE_MESSAGE };
    const size_t head = sizeof(event_head) - 1;
    unsigned char out[256];
    for (size_t i = 0; i < 3; i++) {
        const unsigned char header[WIRE_HEADER] = { (unsigned char)(head + 6), 0, 0, 0, (unsigned char)(5 + i) };
        assert_int_equal(wire_write_event(out, sizeof(out), types[i], &event), WIRE_HEADER + head);
        assert_memory_equal(out, header, WIRE_HEADER);
        assert_memory_equal(out + WIRE_HEADER, event_head, head);
    }
}

static void test_the_types_are_part_of_the_protocol(void **state)
{
    (void)state;
    assert_int_equal(WIRE_HELLO, 1);
    assert_int_equal(WIRE_REFUSED, 3);
    assert_int_equal(WIRE_MESSAGE, 7);
    assert_int_equal(WIRE_HEADER, 8);
    assert_memory_equal(WIRE_MAGIC, "evapid\0\0", WIRE_MAGIC_SIZE);
}

/* ---- round trips ------------------------------------------------------------------------------------------------- */

static void test_a_hello_comes_back(void **state)
{
    (void)state;
    const size_t length = sizeof(hello_bytes) - 1 - WIRE_HEADER;
    struct wire_hello read;
    assert_true(wire_read_hello(at_the_end(hello_bytes + WIRE_HEADER, length), length, &read));
    assert_int_equal(read.version, hello.version);
    assert_true(read.instance == hello.instance);
    assert_int_equal(read.pid, hello.pid);
    assert_int_equal(read.worker, hello.worker);
    assert_int_equal(read.workers, hello.workers);
    assert_int_equal(read.max_clients, hello.max_clients);
    assert_int_equal(read.framing, hello.framing);
    assert_text(read.bind_addr, hello.bind_addr);
    assert_text(read.module_version, hello.module_version);
    assert_text(read.kamailio_version, hello.kamailio_version);
}

static void test_a_welcome_comes_back(void **state)
{
    (void)state;
    const size_t length = sizeof(welcome_bytes) - 1 - WIRE_HEADER;
    struct wire_welcome read;
    assert_true(wire_read_welcome(at_the_end(welcome_bytes + WIRE_HEADER, length), length, &read));
    assert_int_equal(read.version, welcome.version);
    assert_int_equal(read.session, welcome.session);
    assert_int_equal(read.pid, welcome.pid);
    assert_text(read.evapid_version, welcome.evapid_version);
}

static void test_a_refusal_comes_back(void **state)
{
    (void)state;
    const size_t length = sizeof(refused_bytes) - 1 - WIRE_HEADER;
    uint32_t version;
    struct wire_text read;
    assert_true(wire_read_refused(at_the_end(refused_bytes + WIRE_HEADER, length), length, &version, &read));
    assert_int_equal(version, WIRE_VERSION);
    assert_text(read, reason);
}

static void test_a_notice_comes_back(void **state)
{
    (void)state;
    const size_t length = sizeof(notice_bytes) - 1 - WIRE_HEADER;
    uint8_t level;
    struct wire_text read;
    assert_true(wire_read_notice(at_the_end(notice_bytes + WIRE_HEADER, length), length, &level, &read));
    assert_int_equal(level, WIRE_NOTICE_WARNING);
    assert_text(read, reason);
}

static void check_event(const struct wire_event *written)
{
    static unsigned char frame[WIRE_HEADER + WIRE_EVENT_HEAD_MAX + 70000];
    const size_t head = wire_write_event(frame, sizeof(frame), WIRE_MESSAGE, written);
    assert_true(head > WIRE_HEADER && head <= WIRE_HEADER + WIRE_EVENT_HEAD_MAX);
    memcpy(frame + head, written->message.bytes, written->message.length);
    enum wire_type type = 0;
    size_t length = 0;
    assert_int_equal(wire_header(frame, WIRE_HEADER, WIRE_BODY_MAX, &type, &length), WIRE_FRAME);
    assert_int_equal(type, WIRE_MESSAGE);
    assert_int_equal(length, head - WIRE_HEADER + written->message.length);
    struct wire_event read;
    assert_true(wire_read_event(at_the_end(frame + WIRE_HEADER, length), length, &read));
    assert_true(read.sequence == written->sequence);
    assert_int_equal(read.connection, written->connection);
    assert_int_equal(read.port, written->port);
    assert_text(read.address, written->address);
    assert_text(read.tag, written->tag);
    assert_text(read.message, written->message);
}

static void test_an_event_comes_back(void **state)
{
    (void)state;
    static char message[70000];
    for (size_t i = 0; i < sizeof(message); i++)
        message[i] = (char)(i * 7);
    struct wire_event e = event;
    check_event(&e);
    e.sequence = 0;
    e.message = (struct wire_text){ message, 0 };
    check_event(&e);
    e.sequence = UINT64_MAX;
    e.connection = UINT32_MAX;
    e.port = UINT16_MAX;
    e.message = (struct wire_text){ message, sizeof(message) };
    check_event(&e);
    e.address = TEXT("");
    e.tag = TEXT("");
    check_event(&e);
    e.address = (struct wire_text){ message, EVAPID_ADDRESS_MAX };
    e.tag = (struct wire_text){ message + 100, EVAPID_TAG_MAX };
    check_event(&e);
}

/* Nothing is declared, no tag is set: such a text has no bytes, and its pointer may be none either. */
static void test_a_text_of_no_bytes_needs_no_address(void **state)
{
    (void)state;
    static unsigned char out[256];
    struct wire_hello h = hello;
    h.bind_addr = (struct wire_text){ NULL, 0 };
    const size_t size = wire_write_hello(out, sizeof(out), &h);
    assert_int_equal(size, sizeof(hello_bytes) - 1 - 10);
    assert_true(wire_read_hello(out + WIRE_HEADER, size - WIRE_HEADER, &h));
    assert_int_equal(h.bind_addr.length, 0);
}

static void test_the_largest_frames_have_the_sizes_that_are_named(void **state)
{
    (void)state;
    static unsigned char out[WIRE_HEADER + WIRE_EVENT_HEAD_MAX];
    static char text[WIRE_TEXT_MAX];
    struct wire_event e = event;
    e.address = (struct wire_text){ text, EVAPID_ADDRESS_MAX };
    e.tag = (struct wire_text){ text, EVAPID_TAG_MAX };
    e.message = (struct wire_text){ text, EVAPID_MESSAGE_MAX };
    assert_int_equal(wire_write_event(out, sizeof(out), WIRE_MESSAGE, &e), sizeof(out));
    enum wire_type type = 0;
    size_t body = 0;
    assert_int_equal(wire_header(out, WIRE_HEADER, WIRE_BODY_MAX, &type, &body), WIRE_FRAME);
    assert_int_equal(body, WIRE_BODY_MAX);
    static unsigned char room[WIRE_HEADER + WIRE_HELLO_MAX];
    struct wire_hello h = hello;
    h.bind_addr = (struct wire_text){ text, EVAPID_ADDRESS_MAX };
    h.module_version = (struct wire_text){ text, WIRE_TEXT_MAX / 2 };
    h.kamailio_version = (struct wire_text){ text, WIRE_TEXT_MAX };
    assert_int_not_equal(wire_write_hello(room, sizeof(room), &h), 0);
}

/* ---- too little ---------------------------------------------------------------------------------------------------- */

static void test_a_body_cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        const size_t body = kinds[i].size - WIRE_HEADER;
        for (size_t length = 0; length < body; length++)
            if (read_kind(kinds[i].type, at_the_end(kinds[i].bytes + WIRE_HEADER, length), length))
                fail_msg("type %d: a body of %zu of its %zu bytes was read", (int)kinds[i].type, length, body);
        assert_true(read_kind(kinds[i].type, at_the_end(kinds[i].bytes + WIRE_HEADER, body), body));
    }
}

static void test_a_body_with_a_byte_too_many(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        const size_t body = kinds[i].size - WIRE_HEADER;
        assert_int_equal(kinds[i].bytes[kinds[i].size], 0);
        assert_false(read_kind(kinds[i].type, at_the_end(kinds[i].bytes + WIRE_HEADER, body + 1), body + 1));
    }
}

/* Behind the tag every byte is the message's, so that only a cut in front of it is seen. */
static void test_an_event_cut_at_every_byte(void **state)
{
    (void)state;
    unsigned char body[sizeof(event_head) - 1 + 6];
    const size_t head = sizeof(event_head) - 1;
    memcpy(body, event_head, head);
    memcpy(body + head, event.message.bytes, 6);
    for (size_t length = 0; length <= sizeof(body); length++) {
        struct wire_event read;
        const bool good = wire_read_event(at_the_end(body, length), length, &read);
        assert_int_equal(good, length >= head);
        if (good)
            assert_text(read.message, (struct wire_text){ event.message.bytes, length - head });
    }
}

static void check_room(enum wire_type type, size_t size)
{
    unsigned char out[256];
    for (size_t room = 0; room < size; room++) {
        memset(out, '#', sizeof(out));
        assert_int_equal(write_kind(type, out, room), 0);
        for (size_t i = room; i < sizeof(out); i++)
            if (out[i] != '#')
                fail_msg("type %d in a room of %zu: byte %zu was written", (int)type, room, i);
    }
    memset(out, '#', sizeof(out));
    assert_int_equal(write_kind(type, out, size), size);
    assert_int_equal(out[size], '#');
}

static void test_a_room_that_is_too_small(void **state)
{
    (void)state;
    for (size_t i = 0; i < KINDS; i++)
        check_room(kinds[i].type, kinds[i].size);
    check_room(WIRE_NEW, WIRE_HEADER + sizeof(event_head) - 1);
    check_room(WIRE_MESSAGE, WIRE_HEADER + sizeof(event_head) - 1);
}

static void test_a_cursor_that_failed_stays_so(void **state)
{
    (void)state;
    unsigned char out[4] = "####";
    struct wire_cursor c = { .at = out, .end = out + 4 };
    wire_put(&c, 0x0102, 2);
    wire_put(&c, 0x01020304, 4);
    wire_put(&c, 0x7f, 1);
    wire_put_bytes(&c, "x", 1);
    wire_put_text(&c, TEXT(""), 1);
    assert_true(c.failed);
    assert_memory_equal(out, "\x02\x01##", 4);
    assert_int_equal(wire_finish(&c, out, WIRE_NOTICE, 0), 0);
    struct wire_cursor r = wire_reading("\x01\x02\x03", 3);
    assert_int_equal(wire_take(&r, 2), 0x0201);
    assert_int_equal(wire_take(&r, 2), 0);
    assert_int_equal(wire_take(&r, 1), 0);
    assert_int_equal(wire_take_bytes(&r, 1).length, 0);
    assert_int_equal(wire_take_bytes(&r, 0).length, 0);
    assert_true(r.failed);
}

/* ---- too much ---------------------------------------------------------------------------------------------------- */

static void test_a_text_too_long_for_its_length(void **state)
{
    (void)state;
    static char text[65536 + 256];
    static unsigned char out[2 * sizeof(text)];
    const struct wire_text fits = { text, 65535 }, long_text = { text, 65536 }, longer_text = { text, 65536 + 5 };
    assert_int_equal(wire_write_refused(out, sizeof(out), 1, fits), WIRE_HEADER + 4 + 2 + 65535);
    assert_int_equal(wire_write_refused(out, sizeof(out), 1, long_text), 0);
    assert_int_equal(wire_write_notice(out, sizeof(out), 1, long_text), 0);
    assert_int_equal(wire_write_notice(out, sizeof(out), 1, longer_text), 0);
    struct wire_hello h = hello;
    h.bind_addr = longer_text;
    assert_int_equal(wire_write_hello(out, sizeof(out), &h), 0);
    h = hello;
    h.kamailio_version = long_text;
    assert_int_equal(wire_write_hello(out, sizeof(out), &h), 0);
    struct wire_event e = event;
    e.address = (struct wire_text){ text, 255 };
    e.tag = (struct wire_text){ text, 255 };
    assert_int_equal(wire_write_event(out, sizeof(out), WIRE_NEW, &e), WIRE_HEADER + 16 + 510);
    e.tag.length = 256;
    assert_int_equal(wire_write_event(out, sizeof(out), WIRE_NEW, &e), 0);
    e.tag.length = 4;
    e.address.length = 256 + 9;
    assert_int_equal(wire_write_event(out, sizeof(out), WIRE_NEW, &e), 0);
}

/* A string's length says more than the body holds. */
static void test_a_text_that_goes_on_behind_its_body(void **state)
{
    (void)state;
    static const struct {
        size_t kind, at; /* kinds[kind], and the offset in its body of the length's low byte */
    } lengths[] = { { 0, 33 }, { 0, 45 }, { 0, 50 }, { 1, 12 }, { 2, 4 }, { 3, 1 } };
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        const struct kind *kind = &kinds[lengths[i].kind];
        const size_t length = kind->size - WIRE_HEADER;
        unsigned char body[256];
        for (unsigned more = 1; more < 0x10000; more <<= 1) {
            memcpy(body, kind->bytes + WIRE_HEADER, length);
            const unsigned said = body[lengths[i].at] + more;
            body[lengths[i].at] = (unsigned char)said;
            body[lengths[i].at + 1] = (unsigned char)(said >> 8);
            if (said > 0xffff)
                continue;
            assert_false(read_kind(kind->type, at_the_end(body, length), length));
        }
    }
}

static void test_an_event_s_tag_and_address_have_limits(void **state)
{
    (void)state;
    static char text[256];
    unsigned char out[1024];
    for (size_t length = 0; length <= 255; length++) {
        struct wire_event e = event, read;
        e.tag = (struct wire_text){ text, length };
        size_t size = wire_write_event(out, sizeof(out), WIRE_NEW, &e);
        assert_int_equal(wire_read_event(out + 8, size - 8, &read), size != 0 && length <= EVAPID_TAG_MAX);
        e = event;
        e.address = (struct wire_text){ text, length };
        size = wire_write_event(out, sizeof(out), WIRE_NEW, &e);
        assert_int_equal(wire_read_event(out + 8, size - 8, &read), size != 0 && length <= EVAPID_ADDRESS_MAX);
    }
}

/* A body that the other side would refuse, or whose length the header's 32 bits cannot hold, is no frame at all. */
static void test_a_message_that_is_too_long(void **state)
{
    (void)state;
    unsigned char out[256];
    const size_t head = sizeof(event_head) - 1, max = WIRE_BODY_MAX - head;
    const size_t wrong[] = {
        max + 1, WIRE_BODY_MAX, WIRE_BODY_MAX + 1, (size_t)1 << 32, ((size_t)1 << 32) + 6, SIZE_MAX
    };
    struct wire_event e = event;
    e.message.length = max;
    assert_int_equal(wire_write_event(out, sizeof(out), WIRE_MESSAGE, &e), WIRE_HEADER + head);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        e.message.length = wrong[i];
        if (wire_write_event(out, sizeof(out), WIRE_MESSAGE, &e) != 0)
            fail_msg("a message of %zu bytes makes a body over %lu", wrong[i], WIRE_BODY_MAX);
    }
}

/* ---- who says hello ---------------------------------------------------------------------------------------------- */

/* Read HELLO's body with the byte at offset changed to value. */
static bool read_changed_hello(size_t offset, unsigned char value, struct wire_hello *read)
{
    unsigned char body[sizeof(hello_bytes)];
    const size_t length = sizeof(hello_bytes) - 1 - WIRE_HEADER;
    memcpy(body, hello_bytes + WIRE_HEADER, length);
    body[offset] = value;
    return wire_read_hello(at_the_end(body, length), length, read);
}

static void test_a_hello_with_another_magic(void **state)
{
    (void)state;
    for (size_t i = 0; i < WIRE_MAGIC_SIZE; i++) {
        struct wire_hello read;
        assert_false(read_changed_hello(i, (unsigned char)(hello_bytes[WIRE_HEADER + i] ^ 1), &read));
        assert_int_equal(read.version, 0);
    }
}

/* A newer module is told which version it should speak, whatever the rest of its HELLO looks like. */
static void test_a_hello_of_another_version(void **state)
{
    (void)state;
    struct wire_hello read;
    for (size_t i = 0; i < 4; i++) {
        assert_false(read_changed_hello(WIRE_MAGIC_SIZE + i, 7, &read));
        assert_int_equal(read.version, i == 0 ? 7 : 1U + (7U << 8 * i));
        assert_true(read.instance == 0);
    }
    static const unsigned char shortest[] = "evapid\0\0\x02\0\0\0";
    assert_false(wire_read_hello(at_the_end(shortest, 12), 12, &read));
    assert_int_equal(read.version, 2);
    assert_false(wire_read_hello(at_the_end(shortest, 11), 11, &read));
    assert_int_equal(read.version, 0);
}

/* Is a HELLO of this worker of so many accepted? */
static bool hello_accepted(uint16_t worker, uint16_t workers, uint8_t framing)
{
    unsigned char out[256];
    struct wire_hello h = hello, read;
    h.worker = worker;
    h.workers = workers;
    h.framing = framing;
    const size_t size = wire_write_hello(out, sizeof(out), &h);
    return wire_read_hello(at_the_end(out + WIRE_HEADER, size - WIRE_HEADER), size - WIRE_HEADER, &read);
}

static void test_a_hello_of_a_worker_that_cannot_be(void **state)
{
    (void)state;
    assert_true(hello_accepted(0, 1, WIRE_FRAMING_NETSTRING));
    assert_false(hello_accepted(1, 1, WIRE_FRAMING_NETSTRING));
    assert_false(hello_accepted(0, 0, WIRE_FRAMING_NETSTRING));
    assert_true(hello_accepted(EVAPID_WORKERS_MAX - 1, EVAPID_WORKERS_MAX, WIRE_FRAMING_NETSTRING));
    assert_false(hello_accepted(EVAPID_WORKERS_MAX, EVAPID_WORKERS_MAX, WIRE_FRAMING_NETSTRING));
    assert_false(hello_accepted(0, EVAPID_WORKERS_MAX + 1, WIRE_FRAMING_NETSTRING));
    assert_false(hello_accepted(0, UINT16_MAX, WIRE_FRAMING_NETSTRING));
    assert_false(hello_accepted(UINT16_MAX, UINT16_MAX, WIRE_FRAMING_NETSTRING));
}

static void test_a_hello_of_a_framing_that_cannot_be(void **state)
{
    (void)state;
    assert_true(hello_accepted(0, 1, WIRE_FRAMING_RAW));
    assert_false(hello_accepted(0, 1, WIRE_FRAMING_RAW + 1));
    assert_false(hello_accepted(0, 1, UINT8_MAX));
}

/* ---- headers ----------------------------------------------------------------------------------------------------- */

static enum wire_status header_of(const void *bytes, size_t len, size_t body_max, enum wire_type *type, size_t *body)
{
    return wire_header(at_the_end(bytes, len), len, body_max, type, body);
}

static void test_a_header_cut_at_every_byte(void **state)
{
    (void)state;
    enum wire_type type = 0;
    size_t body = 0;
    for (size_t len = 0; len < WIRE_HEADER; len++)
        assert_int_equal(header_of("\x39\0\0\0\x01\0\0\0", len, 1024, &type, &body), WIRE_MORE);
    assert_int_equal(header_of("\x39\0\0\0\x01\0\0\0", 8, 1024, &type, &body), WIRE_FRAME);
    assert_int_equal(type, WIRE_HELLO);
    assert_int_equal(body, 0x39);
}

static void test_every_type_known_and_unknown(void **state)
{
    (void)state;
    for (unsigned t = 0; t < 256; t++) {
        const unsigned char bytes[WIRE_HEADER] = { 1, 0, 0, 0, (unsigned char)t };
        enum wire_type type = 0;
        size_t body = 0;
        const bool known = t >= 1 && t <= 7;
        assert_int_equal(header_of(bytes, 8, 1024, &type, &body), known ? WIRE_FRAME : WIRE_BAD);
        if (known)
            assert_int_equal(type, t);
    }
}

static void test_reserved_bytes_are_zero(void **state)
{
    (void)state;
    for (size_t i = 5; i < WIRE_HEADER; i++) {
        for (unsigned bit = 1; bit < 256; bit <<= 1) {
            unsigned char bytes[WIRE_HEADER] = { 1, 0, 0, 0, WIRE_NOTICE };
            enum wire_type type = 0;
            size_t body = 0;
            bytes[i] = (unsigned char)bit;
            assert_int_equal(header_of(bytes, 8, 1024, &type, &body), WIRE_BAD);
        }
    }
}

static void test_a_body_has_a_limit(void **state)
{
    (void)state;
    enum wire_type type = 0;
    size_t body = 0;
    assert_int_equal(header_of("\x00\x04\0\0\x07\0\0\0", 8, 1024, &type, &body), WIRE_FRAME);
    assert_int_equal(body, 1024);
    assert_int_equal(header_of("\x01\x04\0\0\x07\0\0\0", 8, 1024, &type, &body), WIRE_BAD);
    assert_int_equal(header_of("\xff\xff\xff\xff\x07\0\0\0", 8, WIRE_BODY_MAX, &type, &body), WIRE_BAD);
    assert_int_equal(header_of("\xff\xff\xff\xff\x07\0\0\0", 8, SIZE_MAX, &type, &body), WIRE_FRAME);
    assert_int_equal(body, UINT32_MAX);
    assert_int_equal(header_of("\0\0\0\0\x07\0\0\0", 8, 0, &type, &body), WIRE_FRAME);
    assert_int_equal(body, 0);
}

/* ---- anything at all --------------------------------------------------------------------------------------------- */

/* Good bodies with random bytes changed, and random cuts: a reader stays within the body, and what it accepts lies there. */
static void test_random_bodies(void **state)
{
    (void)state;
    unsigned seed = 31337;
    size_t accepted = 0, rejected = 0;
    for (size_t round = 0; round < 200000; round++) {
        const size_t i = (size_t)rand_r(&seed) % (KINDS + 1);
        const unsigned char *from = i < KINDS ? kinds[i].bytes + WIRE_HEADER : event_head;
        const size_t whole = i < KINDS ? kinds[i].size - WIRE_HEADER : sizeof(event_head) - 1;
        unsigned char body[256];
        memcpy(body, from, whole);
        for (int changes = rand_r(&seed) % 4; changes > 0; changes--)
            body[(size_t)rand_r(&seed) % whole] = (unsigned char)rand_r(&seed);
        const size_t length = rand_r(&seed) % 4 == 0 ? (size_t)rand_r(&seed) % (whole + 1) : whole;
        if (read_kind(i < KINDS ? kinds[i].type : WIRE_MESSAGE, at_the_end(body, length), length))
            accepted++;
        else
            rejected++;
    }
    assert_true(accepted > 1000 && rejected > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bytes_of_each_frame),
        cmocka_unit_test(test_the_bytes_of_an_event),
        cmocka_unit_test(test_the_types_are_part_of_the_protocol),
        cmocka_unit_test(test_a_hello_comes_back),
        cmocka_unit_test(test_a_welcome_comes_back),
        cmocka_unit_test(test_a_refusal_comes_back),
        cmocka_unit_test(test_a_notice_comes_back),
        cmocka_unit_test(test_an_event_comes_back),
        cmocka_unit_test(test_a_text_of_no_bytes_needs_no_address),
        cmocka_unit_test(test_the_largest_frames_have_the_sizes_that_are_named),
        cmocka_unit_test(test_a_body_cut_at_every_byte),
        cmocka_unit_test(test_a_body_with_a_byte_too_many),
        cmocka_unit_test(test_an_event_cut_at_every_byte),
        cmocka_unit_test(test_a_room_that_is_too_small),
        cmocka_unit_test(test_a_cursor_that_failed_stays_so),
        cmocka_unit_test(test_a_text_too_long_for_its_length),
        cmocka_unit_test(test_a_text_that_goes_on_behind_its_body),
        cmocka_unit_test(test_an_event_s_tag_and_address_have_limits),
        cmocka_unit_test(test_a_message_that_is_too_long),
        cmocka_unit_test(test_a_hello_with_another_magic),
        cmocka_unit_test(test_a_hello_of_another_version),
        cmocka_unit_test(test_a_hello_of_a_worker_that_cannot_be),
        cmocka_unit_test(test_a_hello_of_a_framing_that_cannot_be),
        cmocka_unit_test(test_a_header_cut_at_every_byte),
        cmocka_unit_test(test_every_type_known_and_unknown),
        cmocka_unit_test(test_reserved_bytes_are_zero),
        cmocka_unit_test(test_a_body_has_a_limit),
        cmocka_unit_test(test_random_bodies),
    };
    return cmocka_run_group_tests_name("wire", tests, open_window, close_window);
}
