/* Wire frames from outside: another version, impossible values, random bytes. */
#include "include/wire_rig.h"

/* ---- HELLO ------------------------------------------------------------------------------------------------------- */

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

/* evapid tells a newer module which version to speak, whatever the rest of its HELLO looks like. */
static void test_a_hello_of_another_version(void **state)
{
    (void)state;
    struct wire_hello read;
    for (size_t i = 0; i < 4; i++) {
        assert_false(read_changed_hello(WIRE_MAGIC_SIZE + i, 7, &read));
        assert_int_equal(read.version, i == 0 ? 7 : WIRE_VERSION + (7U << 8 * i));
        assert_true(read.instance == 0);
    }
    static const unsigned char shortest[] = "evapid\0\0\x04\0\0\0";
    assert_false(wire_read_hello(at_the_end(shortest, 12), 12, &read));
    assert_int_equal(read.version, 4);
    assert_false(wire_read_hello(at_the_end(shortest, 11), 11, &read));
    assert_int_equal(read.version, 0);
}

/* Is a HELLO of worker number worker, of so many workers, accepted? */
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

static void test_a_hello_of_an_impossible_worker(void **state)
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

static void test_a_hello_of_an_unknown_framing(void **state)
{
    (void)state;
    assert_true(hello_accepted(0, 1, WIRE_FRAMING_RAW));
    assert_false(hello_accepted(0, 1, WIRE_FRAMING_RAW + 1));
    assert_false(hello_accepted(0, 1, UINT8_MAX));
}

/* A flag is 1 or 0. */
static void test_a_flag_that_is_neither_0_nor_1(void **state)
{
    (void)state;
    struct wire_hello read;
    assert_true(read_changed_hello(33, 0, &read));
    assert_false(read.keep_clients);
    assert_false(read_changed_hello(33, 2, &read));
    unsigned char head[sizeof(event_head)];
    struct wire_event again;
    memcpy(head, event_head, sizeof(head));
    head[22] = 0;
    assert_true(wire_read_event(at_the_end(head, sizeof(head) - 1), sizeof(head) - 1, &again));
    assert_false(again.again);
    head[22] = 2;
    assert_false(wire_read_event(at_the_end(head, sizeof(head) - 1), sizeof(head) - 1, &again));
}

/* ---- headers ----------------------------------------------------------------------------------------------------- */

static enum wire_status header_of(const void *bytes, size_t len, size_t body_max, enum wire_type *type, size_t *body)
{
    return wire_header(at_the_end(bytes, len), len, body_max, type, body);
}

static void test_a_query_of_another_magic_version_or_subject(void **state)
{
    (void)state;
    const size_t length = sizeof(query_bytes) - 1 - WIRE_HEADER;
    unsigned char body[sizeof(query_bytes)];
    struct wire_query read;
    uint32_t version = 0;
    memcpy(body, query_bytes + WIRE_HEADER, length);
    body[0] ^= 1;
    assert_false(wire_read_query(at_the_end(body, length), length, &read, &version));
    assert_int_equal(version, 0);
    body[0] ^= 1;
    body[8] = 9;
    assert_false(wire_read_query(at_the_end(body, length), length, &read, &version));
    assert_int_equal(version, 9);
    body[8] = WIRE_VERSION;
    for (unsigned subject = 0; subject < 256; subject++) {
        body[12] = (unsigned char)subject;
        const bool known = subject == WIRE_ASK_STATUS || subject == WIRE_ASK_CLIENTS;
        assert_int_equal(wire_read_query(at_the_end(body, length), length, &read, &version), known);
    }
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
        const bool known = t >= 1 && t <= 9;
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

/* Good bodies with random bytes changed and random cuts. A reader stays within the body, and so does all that it
 * accepts. */
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
        cmocka_unit_test(test_a_hello_with_another_magic),
        cmocka_unit_test(test_a_hello_of_another_version),
        cmocka_unit_test(test_a_hello_of_an_impossible_worker),
        cmocka_unit_test(test_a_hello_of_an_unknown_framing),
        cmocka_unit_test(test_a_flag_that_is_neither_0_nor_1),
        cmocka_unit_test(test_a_query_of_another_magic_version_or_subject),
        cmocka_unit_test(test_a_header_cut_at_every_byte),
        cmocka_unit_test(test_every_type_known_and_unknown),
        cmocka_unit_test(test_reserved_bytes_are_zero),
        cmocka_unit_test(test_a_body_has_a_limit),
        cmocka_unit_test(test_random_bodies),
    };
    return cmocka_run_group_tests_name("wire, trust", tests, open_window, close_window);
}
