/* Shows what passes. */
#include "views/tail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "bus/roster.h"
#include "client/subscription.h"
#include "views/status.h"

#define NOTICE_ROOM 64U /* for the notice of lines not shown, after the lines */

/* ---- a payload as JSON ------------------------------------------------------------------------------------------ */

/* RFC 4648. */
static json_t *describe_base64(const unsigned char *bytes, size_t length)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t size = (length + 2) / 3 * 4;
    char *text = malloc(size + 1);
    if (text == NULL)
        return NULL;
    for (size_t i = 0, n = 0; i < length; i += 3) {
        const size_t left = length - i;
        const uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                               (left > 2 ? (uint32_t)bytes[i + 2] : 0);
        for (unsigned digit = 0; digit < 4; digit++)
            text[n++] = '=';
        for (unsigned digit = 0; digit < 4 && digit <= left; digit++)
            text[n - 4 + digit] = digits[group >> (18 - 6 * digit) & 63];
    }
    json_t *described = json_stringn_nocheck(text, size);
    free(text);
    return described;
}

/* How much of a text of length bytes ends with a whole character. Bytes that are not UTF-8 stay. */
static size_t cut_text(const char *bytes, size_t length)
{
    size_t begin = length;
    while (begin > 0 && length - begin < 4 && ((unsigned char)bytes[begin - 1] & 0xc0) == 0x80)
        begin--;
    const unsigned char lead = begin > 0 ? (unsigned char)bytes[begin - 1] : 0;
    const size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    return begin > 0 && begin - 1 + size > length ? begin - 1 : length;
}

/* Put the payload into line: as text, or in base64 if it is not text. It must be in one part that nobody else can write
 * to. */
static json_t *describe_payload(json_t *line, const char *bytes, size_t length)
{
    const bool cut = length > TAIL_PAYLOAD_MAX;
    const size_t whole = cut ? cut_text(bytes, TAIL_PAYLOAD_MAX) : length;
    json_t *text = json_stringn(bytes, whole);
    const char *key = text != NULL ? "payload" : "base64";
    if (text == NULL)
        text = describe_base64((const unsigned char *)bytes, cut ? TAIL_PAYLOAD_MAX : length);
    if (json_object_set_new(line, "bytes", json_integer((json_int_t)length)) == 0 &&
        json_object_set_new(line, "cut", json_boolean(cut)) == 0 && json_object_set_new(line, key, text) == 0)
        return line;
    json_decref(line);
    return NULL;
}

/* ---- the queue -------------------------------------------------------------------------------------------------- */

/* Once a line is left out, all are until the queue is taken: so the count stands where the gap is. */
static void tail_put(struct tail *tail, const json_t *line)
{
    const size_t room = TAIL_ROOM - NOTICE_ROOM - tail->length;
    const size_t size = line != NULL ? json_dumpb(line, tail->lines + tail->length, room, JSON_COMPACT) : 0;
    if (size == 0 || size >= room) {
        tail->dropped++;
        return;
    }
    tail->length += size;
    tail->lines[tail->length++] = '\n';
}

/* Is there no room for such a payload in any form? Checked before any work is done for it. */
static bool tail_is_full(struct tail *tail, size_t length)
{
    const size_t shown = length < TAIL_PAYLOAD_MAX ? length : TAIL_PAYLOAD_MAX;
    const bool full = tail->dropped > 0 || shown >= TAIL_ROOM - NOTICE_ROOM - tail->length;
    tail->dropped += full;
    return full;
}

char *tail_collect(struct tail *tail, size_t *length)
{
    if (tail->length == 0 && tail->dropped == 0)
        return NULL;
    char *taken = malloc(tail->length + NOTICE_ROOM);
    if (taken == NULL)
        return NULL;
    memcpy(taken, tail->lines, tail->length);
    *length = tail->length;
    if (tail->dropped > 0)
        *length +=
            (size_t)snprintf(taken + *length, NOTICE_ROOM, "{\"dropped\":%llu}\n", (unsigned long long)tail->dropped);
    tail->length = 0;
    tail->dropped = 0;
    return taken;
}

/* ---- looking on ---------------------------------------------------------------------------------------------------- */

static json_t *time_of_day(void)
{
    return describe_time(clock_wall_ms());
}

static bool tail_wants(const struct tail *tail, const char *tag, size_t tag_length)
{
    const struct tail_filter *filter = &tail->filter;
    return !filter->by_tag ||
           (tag_length == filter->tag_length && (tag_length == 0 || memcmp(tag, filter->tag, tag_length) == 0));
}

/* Was the event that has just been given to its receivers meant for this client? Its books tell, whatever the kind of
 * the event. Asked for each event, because each changes them. */
static bool tail_is_meant(struct tail *tail, const struct bus *bus)
{
    struct client *client = roster_find(bus, tail->filter.client);
    const uint64_t before = tail->relayed;
    if (client == NULL)
        return false;
    tail->relayed = subscription_tally(client)->relayed;
    return tail->relayed > before;
}

static json_t *describe_tag(const char *tag, size_t length)
{
    return length > 0 ? describe_bytes(tag, length) : json_null();
}

static void show_event(struct tail *tail, const struct event *event, uint32_t receivers)
{
    static const char *const kinds[] = { "relay", "multicast", "unicast", "send" };
    const struct payload *payload = event->payload;
    const size_t length = payload_length(payload);
    char *bytes = malloc(length + 1); /* Kamailio may still write to the ring, so read it only once */
    json_t *line = NULL;
    if (bytes != NULL) {
        memcpy(bytes, payload->part[0], payload->length[0]);
        if (payload->length[1] > 0)
            memcpy(bytes + payload->length[0], payload->part[1], payload->length[1]);
        line = json_pack("{s:o, s:s, s:s, s:o, s:I}", "time", time_of_day(), "direction", "out", "kind",
                         kinds[event->kind], "tag", describe_tag(event->tag, event->tag_length), "receivers",
                         (json_int_t)receivers);
        if (event->kind == EVENT_SEND)
            json_object_set_new(line, "client", json_integer((json_int_t)event->index));
        line = describe_payload(line, bytes, length);
    }
    tail_put(tail, line);
    json_decref(line);
    free(bytes);
}

static void tails_on_event(void *owner, const struct event *event, uint32_t receivers)
{
    const struct tails *tails = owner;
    struct tail *tail = NULL;
    DL_FOREACH(tails->first, tail)
    {
        const bool meant = tail->filter.client == 0 || tail_is_meant(tail, tails->bus);
        if (meant && tail->filter.out && tail_wants(tail, event->tag, event->tag_length) &&
            !tail_is_full(tail, payload_length(event->payload)))
            show_event(tail, event, receivers);
    }
}

static void show_message(struct tail *tail, const struct client *client, const char *bytes, size_t length)
{
    json_t *tag = client->tagging.tag != NULL ? describe_bytes(client->tagging.tag->name, client->tagging.tag->length)
                                              : json_null();
    json_t *line = json_pack("{s:o, s:s, s:s, s:I, s:o}", "time", time_of_day(), "direction", "in", "kind", "message",
                             "client", (json_int_t)client->index, "tag", tag);
    line = describe_payload(line, bytes, length);
    tail_put(tail, line);
    json_decref(line);
}

static void tails_on_message(void *owner, const struct client *client, const char *bytes, size_t length)
{
    const struct tails *tails = owner;
    const struct tag *tag = client->tagging.tag;
    struct tail *tail = NULL;
    DL_FOREACH(tails->first, tail)
    if (tail->filter.in && (tail->filter.client == 0 || tail->filter.client == client->index) &&
        tail_wants(tail, tag != NULL ? tag->name : "", tag != NULL ? tag->length : 0) && !tail_is_full(tail, length))
        show_message(tail, client, bytes, length);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static void tails_begin(struct tails *tails, struct bus *bus)
{
    tails->bus = bus;
    tails->observer = (struct observer){ .owner = tails, .event = tails_on_event, .message = tails_on_message };
    bus_observe(bus, &tails->observer);
}

struct tail *tail_open(struct tails *tails, struct bus *bus, const struct tail_filter *filter)
{
    struct tail *tail = calloc(1, sizeof(*tail));
    char *lines = malloc(TAIL_ROOM);
    if (tail == NULL || lines == NULL) {
        free(tail);
        free(lines);
        return NULL;
    }
    tail->filter = *filter;
    tail->lines = lines;
    tail_is_meant(tail, bus); /* counts from here on */
    DL_APPEND(tails->first, tail);
    tails->count++;
    if (tails->count == 1)
        tails_begin(tails, bus);
    return tail;
}

void tail_close(struct tails *tails, struct tail *tail)
{
    DL_DELETE(tails->first, tail);
    if (--tails->count == 0)
        bus_unobserve(tails->bus, &tails->observer);
    free(tail->lines);
    free(tail);
}
