/* Wire frames: the bytes of each, what a reader accepts, and that short buffers and bad bodies do no harm.
 *
 * Bodies are read where the memory after their last byte cannot be read, and written before bytes that must not
 * change. */
#include "include/wire_rig.h"

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

/* evapid writes an event's frame up to its message. The header already counts the bytes of the message. */
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
    assert_int_equal(WIRE_ANSWER, 9);
    assert_int_equal(WIRE_HEADER, 8);
    assert_memory_equal(WIRE_MAGIC, "evapid\0\0", WIRE_MAGIC_SIZE);
}

/* ---- round trips ------------------------------------------------------------------------------------------------- */

static void test_a_query_comes_back(void **state)
{
    (void)state;
    const size_t length = sizeof(query_bytes) - 1 - WIRE_HEADER;
    struct wire_query read;
    uint32_t version = 0;
    assert_true(wire_read_query(at_the_end(query_bytes + WIRE_HEADER, length), length, &read, &version));
    assert_int_equal(version, WIRE_VERSION);
    assert_int_equal(read.subject, query.subject);
    assert_int_equal(read.after, query.after);
    assert_int_equal(read.limit, query.limit);
}

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
    assert_true(read.keep_clients);
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
    assert_true(read.read_ns == written->read_ns);
    assert_int_equal(read.port, written->port);
    assert_int_equal(read.again, written->again);
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
    e.again = false;
    e.message = (struct wire_text){ message, sizeof(message) };
    check_event(&e);
    e.address = TEXT("");
    e.tag = TEXT("");
    check_event(&e);
    e.address = (struct wire_text){ message, EVAPID_ADDRESS_MAX };
    e.tag = (struct wire_text){ message + 100, EVAPID_TAG_MAX };
    check_event(&e);
}

/* With nothing declared, or no tag set, the text has no bytes, and its pointer may be NULL. */
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

static void test_the_largest_frames_have_the_documented_sizes(void **state)
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

/* All bytes after the tag are the message's. So only a cut before them is noticed. */
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
    assert_int_equal(wire_get(&r, 2), 0x0201);
    assert_int_equal(wire_get(&r, 2), 0);
    assert_int_equal(wire_get(&r, 1), 0);
    assert_int_equal(wire_get_bytes(&r, 1).length, 0);
    assert_int_equal(wire_get_bytes(&r, 0).length, 0);
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
    assert_int_equal(wire_write_event(out, sizeof(out), WIRE_NEW, &e), WIRE_HEADER + 25 + 510);
    e.tag.length = 256;
    assert_int_equal(wire_write_event(out, sizeof(out), WIRE_NEW, &e), 0);
    e.tag.length = 4;
    e.address.length = 256 + 9;
    assert_int_equal(wire_write_event(out, sizeof(out), WIRE_NEW, &e), 0);
}

/* The text's length is greater than the rest of the body. */
static void test_a_text_that_is_longer_than_its_body(void **state)
{
    (void)state;
    static const struct {
        size_t kind, at; /* index in kinds; offset of the length's low byte in the body */
    } lengths[] = { { 0, 34 }, { 0, 46 }, { 0, 51 }, { 1, 12 }, { 2, 4 }, { 3, 1 } };
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

/* The other side would refuse such a body, or the header's 32 bits cannot hold its length. So no frame is written. */
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

/* The address of a Unix socket's client names its user. Anything else in it is an address, as it is. */
static void test_an_address_names_a_user(void **state)
{
    static const struct {
        const char *address;
        int64_t user; /* -1: it is none */
    } cases[] = {
        { "unix:0", 0 },
        { "unix:4294967295", UINT32_MAX },
        { "unix:1000", 1000 },
        { "unix:4294967296", -1 },
        { "unix:9999999999", -1 },
        { "unix:", -1 },
        { "unix", -1 },
        { "unix:1x", -1 },
        { "unix:-1", -1 },
        { "unix:1/", -1 },
        { "unix:00000000001", -1 },
        { "127.0.0.1", -1 },
        { "", -1 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const struct wire_event of = { .address = { cases[i].address, strlen(cases[i].address) } };
        uint32_t user = 0;
        assert_int_equal(wire_event_is_of_user(&of, &user), cases[i].user >= 0);
        if (cases[i].user >= 0)
            assert_int_equal(user, cases[i].user);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bytes_of_each_frame),
        cmocka_unit_test(test_the_bytes_of_an_event),
        cmocka_unit_test(test_the_types_are_part_of_the_protocol),
        cmocka_unit_test(test_a_hello_comes_back),
        cmocka_unit_test(test_a_query_comes_back),
        cmocka_unit_test(test_a_welcome_comes_back),
        cmocka_unit_test(test_a_refusal_comes_back),
        cmocka_unit_test(test_a_notice_comes_back),
        cmocka_unit_test(test_an_event_comes_back),
        cmocka_unit_test(test_a_text_of_no_bytes_needs_no_address),
        cmocka_unit_test(test_the_largest_frames_have_the_documented_sizes),
        cmocka_unit_test(test_a_body_cut_at_every_byte),
        cmocka_unit_test(test_a_body_with_a_byte_too_many),
        cmocka_unit_test(test_an_event_cut_at_every_byte),
        cmocka_unit_test(test_a_room_that_is_too_small),
        cmocka_unit_test(test_a_cursor_that_failed_stays_so),
        cmocka_unit_test(test_a_text_too_long_for_its_length),
        cmocka_unit_test(test_a_text_that_is_longer_than_its_body),
        cmocka_unit_test(test_an_event_s_tag_and_address_have_limits),
        cmocka_unit_test(test_a_message_that_is_too_long),
        cmocka_unit_test(test_an_address_names_a_user),
    };
    return cmocka_run_group_tests_name("wire", tests, open_window, close_window);
}
