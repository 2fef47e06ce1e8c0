/* How people see each answer. */
#include "evapictl/status_text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evapictl/table.h"
#include "evapictl/text.h"

static long long count_at(const json_t *object, const char *key)
{
    return (long long)number_at(object, key);
}

/* ---- Kamailio --------------------------------------------------------------------------------------------------- */

static void print_ring(const json_t *ring)
{
    char used[SHORT_TEXT];
    char capacity[SHORT_TEXT];
    char high[SHORT_TEXT];
    if (!json_is_object(ring))
        return;
    printf("queue      %s of %s used, high water %s, refused: full %lld, too large %lld%s\n",
           show_size(number_at(ring, "used"), used), show_size(number_at(ring, "capacity"), capacity),
           show_size(number_at(ring, "high_water"), high), count_at(ring, "refused_full"),
           count_at(ring, "refused_large"), is_true_at(ring, "held") ? "; HELD until the clients are there" : "");
    if (number_at(ring, "stale") > 0)
        printf("           %lld records were meant for an evapid before this one\n", count_at(ring, "stale"));
    if (number_at(ring, "lost") > 0)
        printf("           %lld records were lost with processes that died while they wrote them\n",
               count_at(ring, "lost"));
    if (is_true_at(ring, "stuck"))
        printf(
            "           STUCK: a process of Kamailio has stopped while it wrote a record; the others wait behind it\n");
}

static void print_workers(const json_t *workers)
{
    static const char *const titles[] = { ">worker", ">pid", ">clients", ">in flight", ">waiting" };
    static const char *const keys[] = { "index", "pid", "clients", "in_flight", "waiting" };
    struct table table;
    size_t i = 0;
    json_t *worker = NULL;
    table_open(&table, titles, 5);
    json_array_foreach(workers, i, worker)
    {
        table_begin_row(&table);
        for (size_t k = 0; k < 5; k++)
            table_set(&table, k, "%lld", count_at(worker, keys[k]));
    }
    table_print(&table);
}

void print_kamailio(const json_t *answer)
{
    char span[SHORT_TEXT];
    const json_t *kamailio = json_object_get(answer, "kamailio");
    const json_t *workers = json_object_get(kamailio, "workers");
    if (strcmp(text_at(kamailio, "state"), "attached") != 0) {
        printf("kamailio   NOT attached\n");
    } else {
        printf("kamailio   attached for %s (since %s), pid %lld, version %s, module %s\n",
               show_since(text_at(kamailio, "since"), span), text_at(kamailio, "since"), count_at(kamailio, "pid"),
               text_at(kamailio, "version"), text_at(kamailio, "module"));
    }
    print_ring(json_object_get(kamailio, "ring"));
    if (json_array_size(workers) > 0)
        print_workers(workers);
}

/* ---- listeners and tags ----------------------------------------------------------------------------------------- */

void print_listeners(const json_t *answer)
{
    static const char *const titles[] = { "listener", "framing", "from",      "state",
                                          ">clients", ">max",    ">accepted", ">refused" };
    static const char *const texts[] = { "address", "framing", "source", "state" };
    static const char *const counts[] = { "clients", "max_clients", "accepted", "refused" };
    const json_t *listeners = json_object_get(answer, "listeners");
    struct table table;
    size_t i = 0;
    json_t *listener = NULL;
    printf("listeners  %zu\n", json_array_size(listeners));
    if (json_array_size(listeners) == 0)
        return;
    table_open(&table, titles, 8);
    json_array_foreach(listeners, i, listener)
    {
        table_begin_row(&table);
        for (size_t k = 0; k < 4; k++) {
            table_set(&table, k, "%s", text_at(listener, texts[k]));
            table_set(&table, 4 + k, "%lld", count_at(listener, counts[k]));
        }
    }
    table_print(&table);
}

/* "12", or "12 of 340" if not all are shown. */
static void print_count(const char *title, const json_t *list, json_int_t all)
{
    printf("%-10s %zu", title, json_array_size(list));
    if (all > (json_int_t)json_array_size(list))
        printf(" of %lld", (long long)all);
    putchar('\n');
}

/* How long the tag is kept, and what waits; if it is not, dashes. */
static void table_kept(struct table *table, const json_t *kept)
{
    char text[SHORT_TEXT];
    const bool is_kept = json_is_object(kept);
    table_set(table, 3, "%s", is_kept ? show_since(text_at(kept, "since"), text) : "-");
    if (is_kept)
        table_set(table, 4, "%lld%s", count_at(kept, "events"), is_true_at(kept, "full") ? ", FULL" : "");
    else
        table_set(table, 4, "-");
    table_set(table, 5, "%s", is_kept ? show_size(number_at(kept, "bytes"), text) : "-");
}

static bool is_any_kept(const json_t *tags)
{
    size_t i = 0;
    json_t *tag = NULL;
    bool kept = false;
    json_array_foreach(tags, i, tag) kept = kept || json_is_object(json_object_get(tag, "kept"));
    return kept;
}

void print_tags(const json_t *answer)
{
    static const char *const titles[] = { "tag", ">clients", ">receivers", ">kept for", ">waiting", ">bytes" };
    const json_t *tags = json_object_get(answer, "tags");
    const bool kept = is_any_kept(tags);
    struct table table;
    size_t i = 0;
    json_t *tag = NULL;
    print_count("tags", tags, number_at(answer, "total"));
    if (json_array_size(tags) == 0)
        return;
    table_open(&table, titles, kept ? 6 : 3);
    json_array_foreach(tags, i, tag)
    {
        table_begin_row(&table);
        table_set(&table, 0, "%s", text_at(tag, "tag"));
        table_set(&table, 1, "%lld", count_at(tag, "clients"));
        table_set(&table, 2, "%lld", count_at(tag, "receivers"));
        if (kept)
            table_kept(&table, json_object_get(tag, "kept"));
    }
    table_print(&table);
}

/* ---- clients ---------------------------------------------------------------------------------------------------- */

static void table_client(struct table *table, const json_t *client)
{
    char text[SHORT_TEXT];
    const json_t *in = json_object_get(client, "in");
    const json_t *out = json_object_get(client, "out");
    char *dropped = show_dropped(json_object_get(client, "dropped"));
    table_begin_row(table);
    table_set(table, 0, "%lld", count_at(client, "index"));
    table_set(table, 1, "%s", text_at(client, "address"));
    table_set(table, 2, "%s", text_at(client, "tag"));
    table_set(table, 3, "%s%s", text_at(client, "state"), is_true_at(client, "slow") ? ", SLOW" : "");
    table_set(table, 4, "%s", show_since(text_at(client, "since"), text));
    table_set(table, 5, "%s", show_span(number_at(client, "idle_s"), text));
    table_set(table, 6, "%lld", count_at(in, "frames"));
    table_set(table, 7, "%s", show_size(number_at(in, "bytes"), text));
    table_set(table, 8, "%lld", count_at(in, "waiting"));
    table_set(table, 9, "%lld", count_at(out, "delivered"));
    table_set(table, 10, "%s", show_size(number_at(out, "bytes"), text));
    table_set(table, 11, "%lld", count_at(out, "queued_frames"));
    table_set(table, 12, "%s", show_size(number_at(out, "queued_bytes"), text));
    table_set(table, 13, "%s", dropped);
    free(dropped);
}

void print_clients(const json_t *answer)
{
    static const char *const titles[] = { ">client", "address",  "tag",  "state",  ">for",    ">idle",  ">in",
                                          ">bytes",  ">waiting", ">out", ">bytes", ">queued", ">bytes", "dropped" };
    const json_t *clients = json_object_get(answer, "clients");
    struct table table;
    size_t i = 0;
    json_t *client = NULL;
    print_count("clients", clients, number_at(answer, "total"));
    if (json_array_size(clients) == 0)
        return;
    table_open(&table, titles, 14);
    json_array_foreach(clients, i, client) table_client(&table, client);
    table_print(&table);
}

void print_client(const json_t *answer)
{
    char text[SHORT_TEXT];
    const json_t *client = json_object_get(answer, "client");
    const json_t *in = json_object_get(client, "in");
    const json_t *out = json_object_get(client, "out");
    char *lost = show_dropped(json_object_get(in, "dropped"));
    char *dropped = show_dropped(json_object_get(client, "dropped"));
    printf("client     %lld, %s at %s, %s\n", count_at(client, "index"), text_at(client, "address"),
           text_at(client, "listener"), text_at(client, "state"));
    printf("tag        %s\n", text_at(client, "tag"));
    printf("connected  for %s (since %s)\n", show_since(text_at(client, "since"), text), text_at(client, "since"));
    printf("idle       for %s\n", show_span(number_at(client, "idle_s"), text));
    if (is_true_at(client, "slow"))
        printf("SLOW       for %s (since %s)\n", show_since(text_at(client, "slow_since"), text),
               text_at(client, "slow_since"));
    printf("in         messages %lld (%s), worked on %lld, waiting %lld, dropped %s\n", count_at(in, "frames"),
           show_size(number_at(in, "bytes"), text), count_at(in, "delivered"), count_at(in, "waiting"), lost);
    printf("out        relayed %lld, delivered %lld (%s), ", count_at(out, "relayed"), count_at(out, "delivered"),
           show_size(number_at(out, "bytes"), text));
    printf("queued %lld (%s), dropped %s\n", count_at(out, "queued_frames"),
           show_size(number_at(out, "queued_bytes"), text), dropped);
    free(lost);
    free(dropped);
}

/* ---- the configuration ------------------------------------------------------------------------------------------- */

void print_config(const json_t *answer)
{
    static const char *const titles[] = { "key", "value", "default", "from" };
    struct table table;
    size_t i = 0;
    json_t *key = NULL;
    printf("file       %s\n", text_at(answer, "file"));
    table_open(&table, titles, 4);
    json_array_foreach(json_object_get(answer, "config"), i, key)
    {
        const json_t *held = json_object_get(key, "value");
        char *value = json_is_null(held) ? NULL : json_dumps(held, JSON_COMPACT | JSON_ENCODE_ANY);
        table_begin_row(&table);
        table_set(&table, 0, "%s", text_at(key, "key"));
        table_set(&table, 1, "%s", value != NULL ? value : "-");
        table_set(&table, 2, "%s", is_true_at(key, "default") ? "yes" : "no");
        table_set(&table, 3, "%s", text_at(key, "from"));
        free(value);
    }
    table_print(&table);
}

/* ---- totals ----------------------------------------------------------------------------------------------------- */

static void print_totals(const json_t *totals)
{
    char size[SHORT_TEXT];
    const json_t *clients = json_object_get(totals, "clients");
    const json_t *events = json_object_get(totals, "events");
    const json_t *out = json_object_get(totals, "out");
    const json_t *in = json_object_get(totals, "in");
    char *dropped = show_dropped(json_object_get(out, "dropped"));
    char *lost = show_dropped(json_object_get(in, "dropped"));
    printf("totals\n");
    printf("  clients  accepted %lld, closed %lld, refused %lld\n", count_at(clients, "accepted"),
           count_at(clients, "closed"), count_at(clients, "refused"));
    printf("  events   relay %lld, multicast %lld, unicast %lld, send %lld, of these with no receiver %lld\n",
           count_at(events, "relay"), count_at(events, "multicast"), count_at(events, "unicast"),
           count_at(events, "send"), count_at(events, "no_receiver"));
    printf("  out      relayed %lld, delivered %lld (%s), dropped %s\n", count_at(out, "relayed"),
           count_at(out, "delivered"), show_size(number_at(out, "bytes"), size), dropped);
    printf("  queued   %lld ", count_at(out, "queued_frames"));
    printf("(%s), ", show_size(number_at(out, "queued_bytes"), size));
    printf("in %s of memory\n", show_size(number_at(out, "queued_memory"), size));
    printf("  in       messages %lld (%s), waiting %lld, dropped %s\n", count_at(in, "frames"),
           show_size(number_at(in, "bytes"), size), count_at(in, "waiting"), lost);
    free(dropped);
    free(lost);
}

/* Usually no tag is kept. */
static void print_kept(const json_t *kept)
{
    char size[SHORT_TEXT];
    if (number_at(kept, "tags") > 0)
        printf("kept       %lld tags without clients, %lld events (%s) wait for them\n\n", count_at(kept, "tags"),
               count_at(kept, "events"), show_size(number_at(kept, "bytes"), size));
}

void print_status(const json_t *answer)
{
    char span[SHORT_TEXT];
    printf("evapid     %s, pid %lld, up %s\n", text_at(answer, "version"), count_at(answer, "pid"),
           show_span(number_at(answer, "uptime_s"), span));
    print_kamailio(answer);
    putchar('\n');
    print_listeners(answer);
    putchar('\n');
    print_clients(answer);
    putchar('\n');
    print_kept(json_object_get(answer, "kept"));
    print_totals(json_object_get(answer, "totals"));
}

/* A row for each count in since, with the count of the same name in totals. Rows of a group begin with its name. */
static void table_counts(struct table *table, const char *group, const json_t *since, const json_t *totals)
{
    const char *key = NULL;
    json_t *value = NULL;
    char name[128];
    json_object_foreach((json_t *)(uintptr_t)since, key, value)
    {
        const json_t *total = json_object_get(totals, key);
        snprintf(name, sizeof(name), "%s%s%s", group, group[0] != '\0' ? " " : "", key);
        if (json_is_object(value)) {
            table_counts(table, name, value, total);
        } else if (json_is_integer(value)) {
            table_begin_row(table);
            table_set(table, 0, "%s", name);
            table_set(table, 1, "%lld", (long long)json_integer_value(total));
            table_set(table, 2, "%lld", (long long)json_integer_value(value));
        }
    }
}

void print_stats(const json_t *answer)
{
    static const char *const titles[] = { "count", ">total", ">since reset" };
    char span[SHORT_TEXT];
    struct table table;
    const json_t *since = json_object_get(answer, "since_reset");
    const char *time = json_string_value(json_object_get(since, "since"));
    if (time != NULL)
        printf("reset      %s ago (%s)\n", show_since(time, span), time);
    else
        printf("reset      never\n");
    table_open(&table, titles, 3);
    table_counts(&table, "", since, json_object_get(answer, "totals"));
    table_print(&table);
    if (is_true_at(answer, "reset"))
        printf("reset      now: counting from 0\n");
}
