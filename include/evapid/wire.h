/* The frames that evapid and an evapi worker exchange on the Unix socket. docs/protocol.md describes the conversation.
 *
 * A frame is a header of WIRE_HEADER bytes and a body. The header is the body's length (u32), the type (u8) and three
 * zero bytes. All integers are little-endian. A string is its length (u8 or u16) and its bytes, without a NUL.
 *
 *     HELLO     worker → evapid   magic "evapid" 00 00, u32 version, u64 instance, u32 pid, u16 worker, u16 workers,
 *                                 u32 max_clients, u8 framing, u8 keep_clients, u16-string bind_addr,
 *                                 u16-string module version, u16-string Kamailio version; with it, as SCM_RIGHTS,
 *                                 the ring's memfd and evapid's end of the wake
 *     WELCOME   evapid → worker   u32 version, u32 session, u32 pid, u16-string evapid version
 *     REFUSED   evapid → worker   u32 version, u16-string reason; evapid then closes the connection
 *     NOTICE    evapid → worker   u8 level (WIRE_NOTICE_*), u16-string text for Kamailio's log
 *     NEW       evapid → worker   an event: u64 sequence, u32 connection, u64 read, u16 port, u8 again,
 *                                 u8-string address, u8-string tag; the address of a Unix socket's client is
 *                                 "unix:" and the number of its user, with port 0
 *     CLOSED    evapid → worker   the same
 *     MESSAGE   evapid → worker   the same, then the message: the rest of the body
 *     QUERY     asker → evapid    magic, u32 version, u8 subject (WIRE_ASK_*), u32 after, u16 limit; any process of
 *                                 Kamailio may send it, in place of HELLO
 *     ANSWER    evapid → asker    the answer (evapid/answer.h); evapid then closes the connection
 *
 * The magic and the version stay at the start of HELLO and QUERY in every version of the protocol, and REFUSED keeps
 * its form. Two versions can thus always recognize each other. Pure functions: no allocation, no I/O. */
#ifndef EVAPID_WIRE_H
#define EVAPID_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "evapid/limits.h"

#define WIRE_VERSION 3U
#define WIRE_MAGIC "evapid\0\0"
#define WIRE_MAGIC_SIZE 8U
#define WIRE_HEADER 8U
#define WIRE_HELLO_MAX 1024U                                            /* the largest accepted HELLO body */
#define WIRE_TEXT_MAX 512U                                              /* the longest reason, notice or version */
#define WIRE_EVENT_HEAD_MAX (25U + EVAPID_ADDRESS_MAX + EVAPID_TAG_MAX) /* an event's body before its message */
#define WIRE_ANSWER_MAX 65536U /* the longest body of an ANSWER: it fits the buffer of a new Unix socket */
#define WIRE_BODY_MAX (WIRE_EVENT_HEAD_MAX + EVAPID_MESSAGE_MAX)

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_WELCOME,
    WIRE_REFUSED,
    WIRE_NOTICE,
    WIRE_NEW,
    WIRE_CLOSED,
    WIRE_MESSAGE,
    WIRE_QUERY,
    WIRE_ANSWER,
};

#define WIRE_TYPE_LAST WIRE_ANSWER

enum { WIRE_NOTICE_INFO = 0, WIRE_NOTICE_WARNING = 1, WIRE_NOTICE_ERROR = 2 };

enum wire_subject { WIRE_ASK_STATUS = 1, WIRE_ASK_CLIENTS = 2 };

#define WIRE_USER "unix:"
#define WIRE_USER_MAX (sizeof(WIRE_USER) - 1 + 10) /* with a number of 32 bits */

enum { WIRE_FRAMING_NETSTRING = 0, WIRE_FRAMING_RAW = 1 };

/* Bytes within a frame. They belong to the frame's owner. */
struct wire_text {
    const char *bytes;
    size_t length;
};

/* Copies the text, cut if it exceeds the room, and a NUL. */
static inline void wire_text_copy(char *out, size_t room, struct wire_text text)
{
    const size_t length = text.length < room ? text.length : room - 1;
    if (length > 0)
        memcpy(out, text.bytes, length);
    out[length] = '\0';
}

struct wire_hello {
    uint32_t version;
    uint64_t instance;                                            /* random, one for each start of Kamailio */
    uint32_t pid;                                                 /* Kamailio's main process */
    uint16_t worker;                                              /* 0 .. workers - 1 */
    uint16_t workers;                                             /* 1 .. EVAPID_WORKERS_MAX */
    uint32_t max_clients;                                         /* of the declared listener */
    uint8_t framing;                                              /* WIRE_FRAMING_* */
    bool keep_clients;                                            /* clients stay when this Kamailio is gone */
    struct wire_text bind_addr, module_version, kamailio_version; /* bind_addr empty: no listener is declared */
};

struct wire_welcome {
    uint32_t version, session, pid;
    struct wire_text evapid_version;
};

struct wire_event {
    uint64_t sequence;
    uint32_t connection;
    uint64_t read_ns; /* MESSAGE: CLOCK_MONOTONIC when evapid had read all of it; else 0 */
    uint16_t port;
    bool again; /* NEW: a connection-new route has admitted the client before */
    struct wire_text address, tag, message;
};

struct wire_query {
    enum wire_subject subject;
    uint32_t after; /* clients: those with a larger index */
    uint16_t limit; /* clients: at most so many */
};

/* A place in a body that is written or read. Once something does not fit, failed stays true and nothing more is written
 * or read. The caller checks it once, at the end. */
struct wire_cursor {
    unsigned char *at;
    const unsigned char *end;
    bool failed;
};

static inline void wire_put(struct wire_cursor *c, uint64_t value, unsigned bytes)
{
    if (c->failed || (size_t)(c->end - c->at) < bytes) {
        c->failed = true;
        return;
    }
    for (unsigned i = 0; i < bytes; i++)
        *c->at++ = (unsigned char)(value >> 8 * i);
}

static inline void wire_put_bytes(struct wire_cursor *c, const void *bytes, size_t length)
{
    if (c->failed || (size_t)(c->end - c->at) < length) {
        c->failed = true;
        return;
    }
    if (length == 0)
        return; /* bytes may then be NULL, which memcpy forbids */
    memcpy(c->at, bytes, length);
    c->at += length;
}

/* A string whose length field has this many bytes (1 or 2). Fails if the string is too long for it. */
static inline void wire_put_text(struct wire_cursor *c, struct wire_text text, unsigned bytes)
{
    if (text.length >> 8 * bytes != 0)
        c->failed = true;
    wire_put(c, text.length, bytes);
    wire_put_bytes(c, text.bytes, text.length);
}

static inline uint64_t wire_get(struct wire_cursor *c, unsigned bytes)
{
    if (c->failed || (size_t)(c->end - c->at) < bytes) {
        c->failed = true;
        return 0;
    }
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)*c->at++ << 8 * i;
    return value;
}

static inline struct wire_text wire_get_bytes(struct wire_cursor *c, size_t length)
{
    if (c->failed || (size_t)(c->end - c->at) < length) {
        c->failed = true;
        return (struct wire_text){ "", 0 };
    }
    const struct wire_text text = { (const char *)c->at, length };
    c->at += length;
    return text;
}

static inline struct wire_text wire_get_text(struct wire_cursor *c, unsigned bytes)
{
    return wire_get_bytes(c, (size_t)wire_get(c, bytes));
}

static inline struct wire_cursor wire_reading(const void *body, size_t length)
{
    unsigned char *at = (unsigned char *)(uintptr_t)body; /* never written to */
    return (struct wire_cursor){ .at = at, .end = at + length };
}

/* Begin a frame in out[0..room). wire_finish writes its header. */
static inline struct wire_cursor wire_begin(void *out, size_t room)
{
    unsigned char *bytes = out;
    if (room < WIRE_HEADER)
        return (struct wire_cursor){ .at = bytes, .end = bytes, .failed = true };
    return (struct wire_cursor){ .at = bytes + WIRE_HEADER, .end = bytes + room };
}

/* Write the header of the frame that began at out. more: body bytes that follow outside the buffer. Returns the frame's
 * bytes in the buffer, or 0 if it did not fit or its body is longer than WIRE_BODY_MAX. */
static inline size_t wire_finish(struct wire_cursor *c, void *out, enum wire_type type, size_t more)
{
    if (c->failed || more > WIRE_BODY_MAX)
        return 0;
    unsigned char *start = out;
    const size_t size = (size_t)(c->at - start);
    if (size - WIRE_HEADER > WIRE_BODY_MAX - more)
        return 0;
    struct wire_cursor header = { .at = start, .end = start + WIRE_HEADER };
    wire_put(&header, size - WIRE_HEADER + more, 4);
    wire_put(&header, (uint64_t)type, 4);
    return size;
}

enum wire_status { WIRE_FRAME, WIRE_MORE, WIRE_BAD };

/* Read a frame's header at the start of bytes[0..len). FRAME: its type is known, its reserved bytes are zero and its
 * body is at most body_max long. The body itself may not have arrived yet. */
static inline enum wire_status wire_header(const void *bytes, size_t len, size_t body_max, enum wire_type *type,
                                           size_t *body)
{
    if (len < WIRE_HEADER)
        return WIRE_MORE;
    struct wire_cursor c = wire_reading(bytes, WIRE_HEADER);
    const uint64_t length = wire_get(&c, 4);
    const uint64_t kind = wire_get(&c, 4);
    if (kind < WIRE_HELLO || kind > WIRE_TYPE_LAST || length > body_max)
        return WIRE_BAD;
    *type = (enum wire_type)kind;
    *body = (size_t)length;
    return WIRE_FRAME;
}

/* Each writer fills out[0..room) with a whole frame (an event: without its message). It returns the frame's bytes, or 0
 * if it does not fit. Each reader returns false if the body does not have that form. */

static inline size_t wire_write_hello(void *out, size_t room, const struct wire_hello *hello)
{
    struct wire_cursor c = wire_begin(out, room);
    wire_put_bytes(&c, WIRE_MAGIC, WIRE_MAGIC_SIZE);
    wire_put(&c, hello->version, 4);
    wire_put(&c, hello->instance, 8);
    wire_put(&c, hello->pid, 4);
    wire_put(&c, hello->worker, 2);
    wire_put(&c, hello->workers, 2);
    wire_put(&c, hello->max_clients, 4);
    wire_put(&c, hello->framing, 1);
    wire_put(&c, hello->keep_clients, 1);
    wire_put_text(&c, hello->bind_addr, 2);
    wire_put_text(&c, hello->module_version, 2);
    wire_put_text(&c, hello->kamailio_version, 2);
    return wire_finish(&c, out, WIRE_HELLO, 0);
}

/* Reads magic and version first. False with version 0: not a HELLO. False with another version than ours: a HELLO whose
 * rest this side cannot read. */
static inline bool wire_read_hello(const void *body, size_t length, struct wire_hello *hello)
{
    *hello = (struct wire_hello){ 0 };
    struct wire_cursor c = wire_reading(body, length);
    const struct wire_text magic = wire_get_bytes(&c, WIRE_MAGIC_SIZE);
    const uint32_t version = (uint32_t)wire_get(&c, 4);
    if (c.failed || memcmp(magic.bytes, WIRE_MAGIC, WIRE_MAGIC_SIZE) != 0)
        return false;
    hello->version = version;
    if (version != WIRE_VERSION)
        return false;
    hello->instance = wire_get(&c, 8);
    hello->pid = (uint32_t)wire_get(&c, 4);
    hello->worker = (uint16_t)wire_get(&c, 2);
    hello->workers = (uint16_t)wire_get(&c, 2);
    hello->max_clients = (uint32_t)wire_get(&c, 4);
    hello->framing = (uint8_t)wire_get(&c, 1);
    const uint64_t keep_clients = wire_get(&c, 1);
    hello->keep_clients = keep_clients == 1;
    hello->bind_addr = wire_get_text(&c, 2);
    hello->module_version = wire_get_text(&c, 2);
    hello->kamailio_version = wire_get_text(&c, 2);
    return !c.failed && c.at == c.end && hello->workers >= 1 && hello->workers <= EVAPID_WORKERS_MAX &&
           hello->worker < hello->workers && hello->framing <= WIRE_FRAMING_RAW && keep_clients <= 1;
}

static inline size_t wire_write_welcome(void *out, size_t room, const struct wire_welcome *welcome)
{
    struct wire_cursor c = wire_begin(out, room);
    wire_put(&c, welcome->version, 4);
    wire_put(&c, welcome->session, 4);
    wire_put(&c, welcome->pid, 4);
    wire_put_text(&c, welcome->evapid_version, 2);
    return wire_finish(&c, out, WIRE_WELCOME, 0);
}

static inline bool wire_read_welcome(const void *body, size_t length, struct wire_welcome *welcome)
{
    struct wire_cursor c = wire_reading(body, length);
    welcome->version = (uint32_t)wire_get(&c, 4);
    welcome->session = (uint32_t)wire_get(&c, 4);
    welcome->pid = (uint32_t)wire_get(&c, 4);
    welcome->evapid_version = wire_get_text(&c, 2);
    return !c.failed && c.at == c.end;
}

static inline size_t wire_write_refused(void *out, size_t room, uint32_t version, struct wire_text reason)
{
    struct wire_cursor c = wire_begin(out, room);
    wire_put(&c, version, 4);
    wire_put_text(&c, reason, 2);
    return wire_finish(&c, out, WIRE_REFUSED, 0);
}

static inline bool wire_read_refused(const void *body, size_t length, uint32_t *version, struct wire_text *reason)
{
    struct wire_cursor c = wire_reading(body, length);
    *version = (uint32_t)wire_get(&c, 4);
    *reason = wire_get_text(&c, 2);
    return !c.failed && c.at == c.end;
}

static inline size_t wire_write_notice(void *out, size_t room, uint8_t level, struct wire_text text)
{
    struct wire_cursor c = wire_begin(out, room);
    wire_put(&c, level, 1);
    wire_put_text(&c, text, 2);
    return wire_finish(&c, out, WIRE_NOTICE, 0);
}

static inline bool wire_read_notice(const void *body, size_t length, uint8_t *level, struct wire_text *text)
{
    struct wire_cursor c = wire_reading(body, length);
    *level = (uint8_t)wire_get(&c, 1);
    *text = wire_get_text(&c, 2);
    return !c.failed && c.at == c.end;
}

/* type is WIRE_NEW, WIRE_CLOSED or WIRE_MESSAGE. event->message.length bytes follow the returned ones. */
static inline size_t wire_write_event(void *out, size_t room, enum wire_type type, const struct wire_event *event)
{
    struct wire_cursor c = wire_begin(out, room);
    wire_put(&c, event->sequence, 8);
    wire_put(&c, event->connection, 4);
    wire_put(&c, event->read_ns, 8);
    wire_put(&c, event->port, 2);
    wire_put(&c, event->again, 1);
    wire_put_text(&c, event->address, 1);
    wire_put_text(&c, event->tag, 1);
    return wire_finish(&c, out, type, event->message.length);
}

static inline bool wire_read_event(const void *body, size_t length, struct wire_event *event)
{
    struct wire_cursor c = wire_reading(body, length);
    event->sequence = wire_get(&c, 8);
    event->connection = (uint32_t)wire_get(&c, 4);
    event->read_ns = wire_get(&c, 8);
    event->port = (uint16_t)wire_get(&c, 2);
    const uint64_t again = wire_get(&c, 1);
    event->again = again == 1;
    event->address = wire_get_text(&c, 1);
    event->tag = wire_get_text(&c, 1);
    event->message = wire_get_bytes(&c, (size_t)(c.end - c.at));
    return !c.failed && again <= 1 && event->address.length <= EVAPID_ADDRESS_MAX &&
           event->tag.length <= EVAPID_TAG_MAX;
}

/* Is the client a user at a Unix socket? *user: its number. */
static inline bool wire_event_is_of_user(const struct wire_event *event, uint32_t *user)
{
    const size_t prefix = sizeof(WIRE_USER) - 1;
    uint64_t number = 0;
    if (event->address.length <= prefix || event->address.length > WIRE_USER_MAX ||
        memcmp(event->address.bytes, WIRE_USER, prefix) != 0)
        return false;
    for (size_t i = prefix; i < event->address.length; i++) {
        const char digit = event->address.bytes[i];
        if (digit < '0' || digit > '9')
            return false;
        number = number * 10 + (uint64_t)(digit - '0');
    }
    *user = (uint32_t)number;
    return number <= UINT32_MAX;
}

static inline size_t wire_write_query(void *out, size_t room, const struct wire_query *query)
{
    struct wire_cursor c = wire_begin(out, room);
    wire_put_bytes(&c, WIRE_MAGIC, WIRE_MAGIC_SIZE);
    wire_put(&c, WIRE_VERSION, 4);
    wire_put(&c, query->subject, 1);
    wire_put(&c, query->after, 4);
    wire_put(&c, query->limit, 2);
    return wire_finish(&c, out, WIRE_QUERY, 0);
}

/* *version: as in wire_read_hello. */
static inline bool wire_read_query(const void *body, size_t length, struct wire_query *query, uint32_t *version)
{
    *query = (struct wire_query){ 0 };
    struct wire_cursor c = wire_reading(body, length);
    const struct wire_text magic = wire_get_bytes(&c, WIRE_MAGIC_SIZE);
    *version = (uint32_t)wire_get(&c, 4);
    if (c.failed || memcmp(magic.bytes, WIRE_MAGIC, WIRE_MAGIC_SIZE) != 0) {
        *version = 0;
        return false;
    }
    const uint64_t subject = wire_get(&c, 1);
    query->subject = (enum wire_subject)subject;
    query->after = (uint32_t)wire_get(&c, 4);
    query->limit = (uint16_t)wire_get(&c, 2);
    return *version == WIRE_VERSION && !c.failed && c.at == c.end && subject >= WIRE_ASK_STATUS &&
           subject <= WIRE_ASK_CLIENTS;
}

#endif
