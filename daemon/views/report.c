/* Builds reports. */
#include "views/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/slice.h"
#include "bus/roster.h"
#include "config/inventory.h"

#define REPORT_SLICE_NS 2000000U
#define ROOM_FIRST 16384U /* bytes of a text */

/* Bytes that grow; failed: memory was short for some. */
struct text {
    char *bytes;
    size_t length, room;
    bool failed;
};

struct tag_use {
    size_t clients, receivers;
    json_t *kept; /* null, or since when it is kept and what waits */
    uint8_t length;
    char name[EVAPID_TAG_MAX];
};

struct report {
    const struct bus *bus;
    struct text head, tail;
    size_t count, at;  /* items, and the next one */
    uint32_t *clients; /* what it is about; the other two are NULL */
    struct tag_use *tags;
    size_t listed; /* of tags */
    const struct config *config;
    bool begun, over;
};

/* ---- text ------------------------------------------------------------------------------------------------------- */

static void put(struct text *text, const char *bytes, size_t length)
{
    size_t room = text->room == 0 ? ROOM_FIRST : text->room;
    while (room - text->length < length)
        room *= 2;
    char *larger = text->failed || room == text->room ? text->bytes : realloc(text->bytes, room);
    text->failed |= larger == NULL;
    if (text->failed)
        return;
    text->bytes = larger;
    text->room = room;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

static void put_string(struct text *text, const char *string)
{
    put(text, string, strlen(string));
}

/* Append json's text without its first and last skip bytes; takes the reference. NULL: memory was short for it. */
static void put_json(struct text *text, json_t *json, size_t skip)
{
    char *bytes = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    text->failed |= bytes == NULL;
    if (bytes != NULL)
        put(text, bytes + skip, strlen(bytes) - 2 * skip);
    free(bytes);
}

/* ---- what it shows
 * -------------------------------------------------------------------------------------------------- */

/* before and behind are objects; their members go before and after the list. Takes both references. */
static struct report *report_open(const struct bus *bus, json_t *before, const char *list, json_t *behind)
{
    struct report *report = calloc(1, sizeof(*report));
    if (report == NULL) {
        json_decref(before);
        json_decref(behind);
        return NULL;
    }
    report->bus = bus;
    put_string(&report->head, "{");
    const bool any = json_object_size(before) > 0;
    put_json(&report->head, before, 1);
    put_string(&report->head, any ? ",\"" : "\"");
    put_string(&report->head, list);
    put_string(&report->head, "\":[");
    put_string(&report->tail, "],");
    put_json(&report->tail, behind, 1);
    put_string(&report->tail, "}\n");
    return report;
}

/* A report that lacks something is closed; returns NULL then. */
static struct report *report_begin(struct report *report)
{
    const bool subject = report != NULL && (report->clients != NULL || report->tags != NULL || report->config != NULL);
    if (report == NULL || (subject && !report->head.failed && !report->tail.failed))
        return report;
    report_close(report);
    return NULL;
}

struct report *report_status(const struct status_subject *subject)
{
    const struct bus *bus = subject->bus;
    struct report *report = report_open(bus, status_describe(subject), "clients", status_describe_totals(subject));
    if (report == NULL)
        return NULL;
    report->clients = malloc((HASH_COUNT(bus->roster.clients) + 1) * sizeof(*report->clients));
    for (const struct client *client = bus->roster.clients; report->clients != NULL && client != NULL;
         client = client->hh.next)
        report->clients[report->count++] = client->index;
    return report_begin(report);
}

struct report *report_clients(const struct selection *selection, const struct bus *bus)
{
    size_t chosen = 0;
    size_t matching = 0;
    struct client **selected = selection_make(selection, bus, &chosen, &matching);
    json_t *counts =
        json_pack("{s:I, s:I}", "matching", (json_int_t)matching, "total", (json_int_t)HASH_COUNT(bus->roster.clients));
    struct report *report = report_open(bus, json_object(), "clients", counts);
    if (report != NULL && selected != NULL)
        report->clients = malloc((chosen + 1) * sizeof(*report->clients));
    for (size_t i = 0; report != NULL && report->clients != NULL && i < chosen; i++)
        report->clients[report->count++] = selected[i]->index;
    free((void *)selected);
    return report_begin(report);
}

/* The most used first; equally used ones by name. */
static int by_use(const void *left, const void *right)
{
    const struct tag_use *a = left;
    const struct tag_use *b = right;
    if (a->clients != b->clients)
        return a->clients > b->clients ? -1 : 1;
    const size_t shorter = a->length < b->length ? a->length : b->length;
    const int difference = memcmp(a->name, b->name, shorter);
    return difference != 0 ? difference : (int)a->length - (int)b->length;
}

struct report *report_tags(const struct bus *bus, size_t limit)
{
    const size_t tags = HASH_COUNT(bus->tags.tags);
    json_t *total = json_pack("{s:I}", "total", (json_int_t)tags);
    struct report *report = report_open(bus, json_object(), "tags", total);
    if (report == NULL)
        return NULL;
    report->tags = malloc((tags + 1) * sizeof(*report->tags));
    for (const struct tag *tag = bus->tags.tags; report->tags != NULL && tag != NULL; tag = tag->hh.next) {
        struct tag_use *use = &report->tags[report->count++];
        *use = (struct tag_use){ .clients = tag->clients,
                                 .receivers = tag->receivers,
                                 .kept = tag->kept != NULL ? describe_kept(tag->kept) : json_null(),
                                 .length = tag->length };
        memcpy(use->name, tag->name, tag->length);
    }
    if (report->count > 0)
        qsort(report->tags, report->count, sizeof(*report->tags), by_use);
    report->listed = report->count;
    report->count = report->count < limit ? report->count : limit;
    return report_begin(report);
}

struct report *report_config(const struct config *config)
{
    const size_t count = inventory_count(config);
    struct report *report = report_open(NULL, json_pack("{s:s?}", "file", config->file), "config",
                                        json_pack("{s:I}", "total", (json_int_t)count));
    if (report == NULL)
        return NULL;
    report->config = config;
    report->count = count;
    return report_begin(report);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* The next item. False: it has gone. */
static bool report_describe(struct report *report, json_t **item)
{
    const size_t at = report->at++;
    if (report->tags != NULL) {
        const struct tag_use *use = &report->tags[at];
        *item = json_pack("{s:o, s:I, s:I, s:O}", "tag", describe_bytes(use->name, use->length), "clients",
                          (json_int_t)use->clients, "receivers", (json_int_t)use->receivers, "kept", use->kept);
        return true;
    }
    if (report->config != NULL) {
        const bool there = at < inventory_count(report->config);
        *item = there ? inventory_describe(report->config, at) : NULL;
        return there;
    }
    struct client *client = roster_find(report->bus, report->clients[at]);
    *item = client != NULL ? describe_client(client) : NULL;
    return client != NULL;
}

static void report_put_items(struct report *report, struct text *text)
{
    json_t *item = NULL;
    struct slice slice = slice_begin_of(REPORT_SLICE_NS);
    while (report->at < report->count && !text->failed && !slice_is_over(&slice)) {
        if (report_describe(report, &item)) {
            if (report->begun)
                put_string(text, ",");
            report->begun = true;
            put_json(text, item, 0);
        }
    }
}

char *report_write(struct report *report, size_t *length)
{
    struct text text = report->head;
    report->head = (struct text){ .failed = false };
    put_string(&text, ""); /* a slice in which all items have gone is empty: that is no failure */
    report_put_items(report, &text);
    report->over = report->at == report->count;
    if (report->over)
        put(&text, report->tail.bytes, report->tail.length);
    *length = text.length;
    if (!text.failed)
        return text.bytes;
    free(text.bytes);
    return NULL;
}

bool report_is_over(const struct report *report)
{
    return report->over;
}

void report_close(struct report *report)
{
    if (report == NULL)
        return;
    free(report->head.bytes);
    free(report->tail.bytes);
    free(report->clients);
    for (size_t i = 0; report->tags != NULL && i < report->listed; i++)
        json_decref(report->tags[i].kept);
    free(report->tags);
    free(report);
}
