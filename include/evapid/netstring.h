/* Netstrings: finds a frame in the caller's bytes, or writes the header of one.
 *
 * A netstring is the payload's length in decimal digits, a colon, the payload and a comma: "5:hello,". Source: D. J.
 * Bernstein, https://cr.yp.to/proto/netstrings.txt. Two things are accepted beyond that definition, as EVAPI accepts
 * them. The length may begin with zeros, because some programs print it with a fixed width. White space (space, tab,
 * CR, LF) or NUL before a frame is skipped, because people type frames by hand, and some programs end a frame with a
 * newline or with the NUL of a string.
 *
 * Scanning keeps no state: it says what the given bytes are. The caller keeps unfinished bytes and calls again with
 * more. A header is at most NETSTRING_DIGITS_READ + 1 bytes, so reading it again costs nothing. Pure functions: no
 * allocation, no I/O, no globals. */
#ifndef EVAPID_NETSTRING_H
#define EVAPID_NETSTRING_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* The most digits of a length that is written (up to 9,999,999,999 bytes; limits are far below), and those plus the
 * colon. */
#define NETSTRING_DIGITS_MAX 10
#define NETSTRING_HEADER_MAX (NETSTRING_DIGITS_MAX + 1)
#define NETSTRING_LENGTH_MAX 9999999999ULL

/* The most digits of a length that is read, leading zeros included: enough for any 64-bit number. */
#define NETSTRING_DIGITS_READ 20

enum netstring_status {
    NETSTRING_FRAME,       /* a whole frame: payload, length and used are set */
    NETSTRING_MORE,        /* a good start: used is the white space to drop, need the frame's size */
    NETSTRING_BAD_LENGTH,  /* no digit where the length should begin or continue; at is its offset */
    NETSTRING_MANY_DIGITS, /* a length of more than NETSTRING_DIGITS_READ digits */
    NETSTRING_TOO_LONG,    /* the length is over the limit */
    NETSTRING_NO_COMMA,    /* the byte after the payload is not a comma */
};

struct netstring {
    const char *payload; /* FRAME: first byte of the payload, within the given bytes */
    size_t length;       /* FRAME: bytes in the payload */
    size_t used;         /* FRAME: bytes up to and including the comma; else: white space before the frame */
    size_t need;         /* MORE: bytes of the whole frame, after used; 0 while the length is incomplete */
    size_t at;           /* errors: offset of the wrong byte */
};

static inline bool netstring_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\0';
}

/* Look for a frame at the start of bytes[0..len). limit is the largest accepted payload, in bytes. Fills *out as the
 * status says. Reads nothing beyond len. */
static inline enum netstring_status netstring_scan(const char *bytes, size_t len, size_t limit, struct netstring *out)
{
    *out = (struct netstring){ 0 };
    size_t i = 0;
    while (i < len && netstring_is_space(bytes[i]))
        i++;
    const size_t start = i;
    out->used = start;
    size_t value = 0;
    for (; i < len && bytes[i] != ':'; i++) {
        out->at = i;
        if (bytes[i] < '0' || bytes[i] > '9')
            return NETSTRING_BAD_LENGTH;
        if (i - start >= NETSTRING_DIGITS_READ)
            return NETSTRING_MANY_DIGITS;
        value = value * 10 + (size_t)(bytes[i] - '0');
        if (value > limit || value > NETSTRING_LENGTH_MAX) {
            out->at = start;
            return NETSTRING_TOO_LONG;
        }
    }
    if (i == len)
        return NETSTRING_MORE;
    out->at = i;
    if (i == start)
        return NETSTRING_BAD_LENGTH;
    i++;
    if (len - i <= value) {
        out->need = i - start + value + 1;
        return NETSTRING_MORE;
    }
    if (bytes[i + value] != ',') {
        out->at = i + value;
        return NETSTRING_NO_COMMA;
    }
    out->payload = bytes + i;
    out->length = value;
    out->used = i + value + 1;
    return NETSTRING_FRAME;
}

/* Why the stream cannot continue, for a log line; "" for FRAME and MORE. */
static inline const char *netstring_reason(enum netstring_status status)
{
    switch (status) {
    case NETSTRING_BAD_LENGTH: return "a length in decimal digits and a colon was expected";
    case NETSTRING_MANY_DIGITS: return "the length has over 20 digits";
    case NETSTRING_TOO_LONG: return "the length is over the limit";
    case NETSTRING_NO_COMMA: return "no comma after the payload";
    case NETSTRING_FRAME:
    case NETSTRING_MORE: break;
    }
    return "";
}

/* Write "<length>:" to out, which has room for NETSTRING_HEADER_MAX bytes. Returns the bytes written (no NUL). The
 * caller writes the payload and the comma. length has at most NETSTRING_DIGITS_MAX digits. */
static inline size_t netstring_header(char *out, size_t length)
{
    char digits[NETSTRING_DIGITS_MAX];
    size_t n = 0;
    do {
        digits[n++] = (char)('0' + length % 10);
        length /= 10;
    } while (length != 0 && n < sizeof(digits));
    for (size_t i = 0; i < n; i++)
        out[i] = digits[n - 1 - i];
    out[n] = ':';
    return n + 1;
}

#endif
