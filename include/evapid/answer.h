/* An answer: what evapid tells a process of Kamailio about itself (WIRE_QUERY). It is the body of an ANSWER.
 *
 * It is a tree of named values, one after the other. A reader needs to know none of the names:
 *
 *     STRUCT   u8 1, u8-string name, its items, END
 *     LIST     u8 2, u8-string name, STRUCTs without a name, END
 *     NUMBER   u8 3, u8-string name, u64
 *     TEXT     u8 4, u8-string name, u16-string: no control characters
 *     END      u8 0
 *
 * The answer itself is the inside of a struct. A name is 1 to 31 small letters and underscores. Pure functions: no
 * allocation, no I/O. */
#ifndef EVAPID_ANSWER_H
#define EVAPID_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "evapid/wire.h"

#define ANSWER_NAME_MAX 31U
#define ANSWER_DEPTH 4U /* structs and lists that may be open at a time */

enum answer_kind { ANSWER_END = 0, ANSWER_STRUCT, ANSWER_LIST, ANSWER_NUMBER, ANSWER_TEXT };

struct answer_item {
    enum answer_kind kind;
    char name[ANSWER_NAME_MAX + 1]; /* "" in a list, and for an END */
    uint64_t number;
    struct wire_text text; /* points into the answer */
};

/* ---- writing: after wire_begin, before wire_finish
 * ---------------------------------------------------------------- */

static inline void answer_put_name(struct wire_cursor *c, enum answer_kind kind, const char *name)
{
    wire_put(c, kind, 1);
    wire_put_text(c, (struct wire_text){ name, strlen(name) }, 1);
}

static inline void answer_put_struct(struct wire_cursor *c, const char *name)
{
    answer_put_name(c, ANSWER_STRUCT, name);
}

static inline void answer_put_list(struct wire_cursor *c, const char *name)
{
    answer_put_name(c, ANSWER_LIST, name);
}

static inline void answer_put_end(struct wire_cursor *c)
{
    wire_put(c, ANSWER_END, 1);
}

static inline void answer_put_number(struct wire_cursor *c, const char *name, uint64_t number)
{
    answer_put_name(c, ANSWER_NUMBER, name);
    wire_put(c, number, 8);
}

/* Writes a byte that could upset a terminal or a JSON parser as \xNN. Writes at most WIRE_TEXT_MAX bytes. */
static inline void answer_put_text(struct wire_cursor *c, const char *name, const char *bytes, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    char shown[WIRE_TEXT_MAX];
    size_t n = 0;
    for (size_t i = 0; i < length && n + 4 <= sizeof(shown); i++) {
        const unsigned char byte = (unsigned char)bytes[i];
        if (byte >= 0x20 && byte < 0x7f && byte != '\\') {
            shown[n++] = bytes[i];
            continue;
        }
        const char hex[4] = { '\\', 'x', digits[byte >> 4], digits[byte & 15] };
        memcpy(shown + n, hex, sizeof(hex));
        n += sizeof(hex);
    }
    answer_put_name(c, ANSWER_TEXT, name);
    wire_put_text(c, (struct wire_text){ shown, n }, 2);
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

struct answer_reader {
    struct wire_cursor at;
    unsigned depth;                 /* how many structs and lists are open */
    bool in_list[ANSWER_DEPTH + 1]; /* is the one open at this depth a list? 0: the answer itself, a struct */
};

static inline struct answer_reader answer_reading(const void *body, size_t length)
{
    return (struct answer_reader){ .at = wire_reading(body, length) };
}

enum answer_read {
    ANSWER_ITEM, /* *item holds the next item */
    ANSWER_OVER, /* no more items: the answer is complete */
    ANSWER_BAD   /* not an answer */
};

static inline bool answer_get_name(struct answer_reader *reader, struct answer_item *item)
{
    const struct wire_text name = wire_get_text(&reader->at, 1);
    const bool listed = reader->in_list[reader->depth];
    if (reader->at.failed || name.length > ANSWER_NAME_MAX || (name.length == 0) != listed)
        return false;
    for (size_t i = 0; i < name.length; i++)
        if ((name.bytes[i] < 'a' || name.bytes[i] > 'z') && name.bytes[i] != '_')
            return false;
    memcpy(item->name, name.bytes, name.length);
    item->name[name.length] = '\0';
    return !listed || item->kind == ANSWER_STRUCT;
}

static inline bool answer_get_text(struct answer_reader *reader, struct answer_item *item)
{
    item->text = wire_get_text(&reader->at, 2);
    for (size_t i = 0; i < item->text.length; i++)
        if (item->text.bytes[i] < 0x20 || item->text.bytes[i] > 0x7e)
            return false;
    return item->text.length <= WIRE_TEXT_MAX;
}

static inline bool answer_get_value(struct answer_reader *reader, struct answer_item *item)
{
    switch (item->kind) {
    case ANSWER_NUMBER: item->number = wire_get(&reader->at, 8); return true;
    case ANSWER_TEXT: return answer_get_text(reader, item);
    case ANSWER_STRUCT:
    case ANSWER_LIST:
        if (reader->depth == ANSWER_DEPTH)
            return false;
        reader->in_list[++reader->depth] = item->kind == ANSWER_LIST;
        return true;
    case ANSWER_END: break;
    }
    return false;
}

static inline enum answer_read answer_next(struct answer_reader *reader, struct answer_item *item)
{
    if (reader->at.at == reader->at.end)
        return reader->depth == 0 ? ANSWER_OVER : ANSWER_BAD;
    const uint64_t kind = wire_get(&reader->at, 1);
    *item = (struct answer_item){ .kind = (enum answer_kind)kind };
    if (kind == ANSWER_END)
        return reader->depth-- > 0 ? ANSWER_ITEM : ANSWER_BAD;
    if (kind > ANSWER_TEXT || !answer_get_name(reader, item) || !answer_get_value(reader, item))
        return ANSWER_BAD;
    return reader->at.failed ? ANSWER_BAD : ANSWER_ITEM;
}

/* Is this an answer from the first byte to the last? */
static inline bool answer_is_good(const void *body, size_t length)
{
    struct answer_reader reader = answer_reading(body, length);
    struct answer_item item;
    enum answer_read read = ANSWER_ITEM;
    while (read == ANSWER_ITEM)
        read = answer_next(&reader, &item);
    return read == ANSWER_OVER;
}

#endif
