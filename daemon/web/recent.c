/* Keeps the last lines of a tail. */
#include "web/recent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void recent_drop_oldest(struct recent *recent)
{
    const size_t at = recent->first++ % RECENT_LINES;
    recent->bytes -= recent->length[at];
    free(recent->lines[at]);
    recent->lines[at] = NULL;
}

static void recent_add(struct recent *recent, const char *line, size_t length)
{
    char *copy = malloc(length);
    if (copy == NULL)
        return;
    memcpy(copy, line, length);
    while (recent->next > recent->first &&
           (recent->next - recent->first == RECENT_LINES || recent->bytes + length > RECENT_BYTES))
        recent_drop_oldest(recent);
    const size_t at = recent->next++ % RECENT_LINES;
    recent->lines[at] = copy;
    recent->length[at] = length;
    recent->bytes += length;
}

/* Add what the tail has gathered, a line each. */
static void recent_collect(struct recent *recent)
{
    size_t length = 0;
    char *lines = tail_collect(recent->tail, &length);
    const char *end = lines + length;
    for (const char *line = lines; line != NULL && line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        recent_add(recent, line, (size_t)(stop - line)); /* every line of a tail ends with a newline */
        line = stop + 1;
    }
    free(lines);
}

/* The bytes of the lines from that number on. */
static size_t recent_size(const struct recent *recent, uint64_t from)
{
    size_t size = 0;
    for (uint64_t number = from; number < recent->next; number++)
        size += recent->length[number % RECENT_LINES] + 1;
    return size;
}

char *recent_describe(struct recent *recent, struct bus *bus, uint64_t from, uint64_t now_ms, size_t *length)
{
    static const struct tail_filter all = { .out = true, .in = true };
    if (recent->tail == NULL)
        recent->tail = tail_open(&recent->tails, bus, &all);
    if (recent->tail == NULL)
        return NULL;
    recent->asked_ms = now_ms;
    recent_collect(recent);
    if (from < recent->first || from > recent->next)
        from = recent->first;
    const size_t room = recent_size(recent, from) + 64; /* 64: for what stands around the lines */
    char *text = malloc(room);
    if (text == NULL)
        return NULL;
    size_t n = (size_t)snprintf(text, room, "{\"next\":%llu,\"lines\":[", (unsigned long long)recent->next);
    for (uint64_t number = from; number < recent->next; number++) {
        const size_t at = number % RECENT_LINES;
        if (number > from)
            text[n++] = ',';
        memcpy(text + n, recent->lines[at], recent->length[at]);
        n += recent->length[at];
    }
    *length = n + (size_t)snprintf(text + n, room - n, "]}\n");
    return text;
}

void recent_tick(struct recent *recent, uint64_t now_ms)
{
    if (recent->tail != NULL && now_ms - recent->asked_ms >= RECENT_IDLE_MS)
        recent_end(recent);
}

void recent_end(struct recent *recent)
{
    if (recent->tail != NULL)
        tail_close(&recent->tails, recent->tail);
    recent->tail = NULL;
    while (recent->first < recent->next)
        recent_drop_oldest(recent);
}
