/* What the tests of wire frames share: memory that cannot be read after its last byte, and one frame of each kind with
 * its bytes. */
#ifndef EVAPID_TEST_WIRE_RIG_H
#define EVAPID_TEST_WIRE_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "evapid/wire.h"

/* ---- memory with a guarded end ---------------------------------------------------------------------------------- */

#define WINDOW ((size_t)1 << 17)

static unsigned char *window_end; /* first byte that cannot be read */

static inline int open_window(void **state)
{
    (void)state;
    unsigned char *window = mmap(NULL, WINDOW + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (window == MAP_FAILED)
        return -1;
    window_end = window + WINDOW;
    return mprotect(window_end, 4096, PROT_NONE);
}

static inline int close_window(void **state)
{
    (void)state;
    return munmap(window_end - WINDOW, WINDOW + 4096);
}

/* Copy the bytes so that they end at the window's end. */
static inline const unsigned char *at_the_end(const void *bytes, size_t len)
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
    .keep_clients = true,
    .bind_addr = { "[::1]:8448", 10 },
    .module_version = { "0.1", 3 },
    .kamailio_version = { "5.6.3", 5 },
};

static const unsigned char hello_bytes[] = "\x3a\0\0\0\x01\0\0\0"
                                           "evapid\0\0"
                                           "\x03\0\0\0"
                                           "\x88\x77\x66\x55\x44\x33\x22\x11"
                                           "\x04\x03\x02\x01"
                                           "\x01\0"
                                           "\x80\0"
                                           "\xd0\xc0\xb0\xa0"
                                           "\x01"
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
                                             "\x03\0\0\0"
                                             "\x0e\0"
                                             "attached: 4711";

static const unsigned char notice_bytes[] = "\x11\0\0\0\x04\0\0\0"
                                            "\x01"
                                            "\x0e\0"
                                            "attached: 4711";

static const struct wire_query query = { .subject = WIRE_ASK_CLIENTS, .after = 0x01020304, .limit = 0x0506 };

static const unsigned char query_bytes[] = "\x13\0\0\0\x08\0\0\0"
                                           "evapid\0\0"
                                           "\x03\0\0\0"
                                           "\x02"
                                           "\x04\x03\x02\x01"
                                           "\x06\x05";

static const struct wire_event event = {
    .sequence = 0x8877665544332211U,
    .connection = 0xfedcba98,
    .read_ns = 0x0807060504030201U,
    .port = 0xabcd,
    .again = true,
    .address = { "127.0.0.1", 9 },
    .tag = { "ta\0g", 4 },
    .message = { "\0hello", 6 },
};

static const unsigned char event_head[] = "\x11\x22\x33\x44\x55\x66\x77\x88"
                                          "\x98\xba\xdc\xfe"
                                          "\x01\x02\x03\x04\x05\x06\x07\x08"
                                          "\xcd\xab"
                                          "\x01"
                                          "\x09"
                                          "127.0.0.1"
                                          "\x04ta\0g";

/* A string's bytes without its last NUL. */
#define BYTES(array) (array), (sizeof(array) - 1)

/* The kinds of frames that end with their body, so that one loop can write and read them all. */
struct kind {
    enum wire_type type;
    const unsigned char *bytes;
    size_t size;
};

static const struct kind kinds[] = {
    { WIRE_HELLO, BYTES(hello_bytes) },     { WIRE_WELCOME, BYTES(welcome_bytes) },
    { WIRE_REFUSED, BYTES(refused_bytes) }, { WIRE_NOTICE, BYTES(notice_bytes) },
    { WIRE_QUERY, BYTES(query_bytes) },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static inline size_t write_kind(enum wire_type type, void *out, size_t room)
{
    switch (type) {
    case WIRE_HELLO: return wire_write_hello(out, room, &hello);
    case WIRE_WELCOME: return wire_write_welcome(out, room, &welcome);
    case WIRE_REFUSED: return wire_write_refused(out, room, WIRE_VERSION, reason);
    case WIRE_NOTICE: return wire_write_notice(out, room, WIRE_NOTICE_WARNING, reason);
    case WIRE_QUERY: return wire_write_query(out, room, &query);
    default: return wire_write_event(out, room, type, &event);
    }
}

static inline void assert_within(struct wire_text text, const unsigned char *body, size_t length)
{
    const unsigned char *at = (const unsigned char *)text.bytes;
    if (text.length != 0)
        assert_true(at >= body && text.length <= length && (size_t)(at - body) <= length - text.length);
}

/* Read the body by its type. Everything that a reader accepts must be within the body. */
static inline bool read_kind(enum wire_type type, const unsigned char *body, size_t length)
{
    struct wire_hello h;
    struct wire_welcome w;
    struct wire_event e;
    struct wire_query q;
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
    case WIRE_QUERY: good = wire_read_query(body, length, &q, &version); break;
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

static inline void assert_text(struct wire_text text, struct wire_text expected)
{
    assert_int_equal(text.length, expected.length);
    assert_memory_equal(text.bytes, expected.bytes, expected.length);
}

#endif
