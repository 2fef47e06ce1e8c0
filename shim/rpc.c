/* Answers RPC commands. What the module knows itself comes from shared memory. The rest is asked of evapid; its answer
 * is passed on unchanged, name by name. */
#include <limits.h>

#include "core/dprint.h"
#include "evapid/answer.h"

#include "publish.h"
#include "query.h"
#include "queue.h"
#include "rpc.h"
#include "statistics.h"

#define CLIENTS_DEFAULT 100 /* evapid's own maximum for one answer */

static const struct link_settings *settings;

void rpc_init(const struct link_settings *settings_)
{
    settings = settings_;
}

/* ---- passing on evapid's answer
 * ------------------------------------------------------------------------------------- */

/* The open structs and lists of the reply. The first receives the answer's own items. */
struct nest {
    rpc_t *rpc;
    void *handles[ANSWER_DEPTH + 1];
    bool in_list[ANSWER_DEPTH + 1];
    unsigned depth;
};

/* A number larger than an int is written as a double: every interface knows that type, and shows it whole up to
 * 2^53. */
static int add_number(rpc_t *rpc, void *handle, const char *name, uint64_t number)
{
    char *field = (char *)(uintptr_t)name;
    if (number <= INT_MAX)
        return rpc->struct_add(handle, "d", field, (int)number);
    return rpc->struct_add(handle, "f", field, (double)number);
}

static int add_text(rpc_t *rpc, void *handle, const char *name, struct wire_text text)
{
    str value = { .s = (char *)(uintptr_t)text.bytes, .len = (int)text.length };
    return rpc->struct_add(handle, "S", (char *)(uintptr_t)name, &value);
}

static int add_string(rpc_t *rpc, void *handle, const char *name, const char *text)
{
    return rpc->struct_add(handle, "s", (char *)(uintptr_t)name, (char *)(uintptr_t)text);
}

static int open_nested(struct nest *nest, const struct answer_item *item)
{
    void *parent = nest->handles[nest->depth];
    void **handle = &nest->handles[nest->depth + 1];
    const bool list = item->kind == ANSWER_LIST;
    char *name = (char *)(uintptr_t)item->name;
    const int added = nest->in_list[nest->depth] ? nest->rpc->array_add(parent, "{", handle)
                                                 : nest->rpc->struct_add(parent, list ? "[" : "{", name, handle);
    nest->in_list[++nest->depth] = list;
    return added;
}

static int add_item(struct nest *nest, const struct answer_item *item)
{
    void *handle = nest->handles[nest->depth];
    switch (item->kind) {
    case ANSWER_NUMBER: return add_number(nest->rpc, handle, item->name, item->number);
    case ANSWER_TEXT: return add_text(nest->rpc, handle, item->name, item->text);
    case ANSWER_STRUCT:
    case ANSWER_LIST: return open_nested(nest, item);
    case ANSWER_END: nest->depth--; break;
    }
    return 0;
}

/* Copy an answer that query_ask found valid into a struct of the reply. Returns as rpc->struct_add does. */
static int add_answer(rpc_t *rpc, void *handle, struct wire_text answer)
{
    struct nest nest = { .rpc = rpc, .handles = { handle } };
    struct answer_reader reader = answer_reading(answer.bytes, answer.length);
    struct answer_item item;
    int added = 0;
    while (added >= 0 && answer_next(&reader, &item) == ANSWER_ITEM)
        added = add_item(&nest, &item);
    return added;
}

/* ---- what is shown -------------------------------------------------------------------------------------------------- */

static void fault_no_room(rpc_t *rpc, void *context)
{
    rpc->fault(context, 500, "there is no room for the reply");
}

static int add_queue(rpc_t *rpc, void *handle)
{
    const struct ring_header *ring = queue_ring();
    void *queue;
    if (rpc->struct_add(handle, "{", "queue", &queue) < 0 || add_number(rpc, queue, "capacity", queue_capacity()) < 0 ||
        add_number(rpc, queue, "used", queue_used()) < 0)
        return -1;
    if (add_number(rpc, queue, "refused_full", atomic_load_explicit(&ring->refused_full, memory_order_relaxed)) < 0)
        return -1;
    if (add_number(rpc, queue, "refused_large", atomic_load_explicit(&ring->refused_large, memory_order_relaxed)) < 0)
        return -1;
    return add_number(rpc, queue, "lost", atomic_load_explicit(&ring->lost, memory_order_relaxed));
}

static int add_module(rpc_t *rpc, void *handle)
{
    const struct presence *presence = &queue_ring()->presence;
    const bool attached = atomic_load_explicit(&presence->attached, memory_order_acquire) != 0;
    if (add_string(rpc, handle, "state", attached ? "attached" : "detached") < 0 ||
        add_string(rpc, handle, "module", EVAPID_VERSION) < 0 ||
        add_string(rpc, handle, "socket", settings->socket) < 0 ||
        add_number(rpc, handle, "workers", settings->workers) < 0)
        return -1;
    return add_queue(rpc, handle);
}

/* Ask evapid, and put its answer, or why there is none, into a struct of the reply. */
static int add_evapid(rpc_t *rpc, void *handle)
{
    const struct wire_query query = { .subject = WIRE_ASK_STATUS };
    struct wire_text answer;
    void *evapid;
    if (rpc->struct_add(handle, "{", "evapid", &evapid) < 0)
        return -1;
    const char *why = query_ask(settings->socket, &query, &answer);
    return why == NULL ? add_answer(rpc, evapid, answer) : add_string(rpc, evapid, "error", why);
}

static void show_status(rpc_t *rpc, void *context)
{
    void *status;
    if (rpc->add(context, "{", &status) < 0 || add_module(rpc, status) < 0 || add_evapid(rpc, status) < 0)
        fault_no_room(rpc, context);
}

/* An optional parameter: a number from 0 up. False: it is something else. */
static bool scan_number(rpc_t *rpc, void *context, unsigned *number)
{
    str given = { NULL, 0 };
    if (rpc->scan(context, "*.S", &given) < 1 || given.len == 0)
        return true;
    return str2int(&given, number) == 0 && *number <= INT_MAX;
}

static void show_clients(rpc_t *rpc, void *context)
{
    unsigned after = 0;
    unsigned limit = CLIENTS_DEFAULT;
    if (!scan_number(rpc, context, &after) || !scan_number(rpc, context, &limit)) {
        rpc->fault(context, 400, "expected: [AFTER [LIMIT]], both numbers");
        return;
    }
    const struct wire_query query = { .subject = WIRE_ASK_CLIENTS,
                                      .after = after,
                                      .limit = (uint16_t)(limit < CLIENTS_DEFAULT ? limit : CLIENTS_DEFAULT) };
    struct wire_text answer;
    const char *why = query_ask(settings->socket, &query, &answer);
    if (why != NULL) {
        rpc->fault(context, 503, "no clients are known: evapid at %s: %s", settings->socket, why);
        return;
    }
    void *clients;
    if (rpc->add(context, "{", &clients) < 0 || add_answer(rpc, clients, answer) < 0)
        fault_no_room(rpc, context);
}

static void show_stats(rpc_t *rpc, void *context)
{
    void *stats;
    struct statistic statistic;
    int added = rpc->add(context, "{", &stats);
    for (size_t n = 0; added >= 0 && statistics_read(n, &statistic); n++)
        added = add_number(rpc, stats, statistic.name, (uint64_t)statistic.value);
    if (added < 0)
        fault_no_room(rpc, context);
}

/* ---- what can be done
 * ----------------------------------------------------------------------------------------------- */

/* to: the tag or the index of the receivers; NULL: everybody gets it. */
static void push(rpc_t *rpc, void *context, enum ring_type type, str *to, const char *expected)
{
    str event = { NULL, 0 };
    if ((to != NULL && rpc->scan(context, ".S", to) < 1) || rpc->scan(context, ".S", &event) < 1) {
        rpc->fault(context, 400, "%s", expected);
        return;
    }
    const struct text event_text = text_literal(&event);
    struct text to_text;
    if (to != NULL)
        to_text = text_literal(to);
    if (publish_event(NULL, type, &event_text, to != NULL ? &to_text : NULL) < 0)
        rpc->fault(context, 500, "it is not sent: Kamailio's log says why");
}

static void do_relay(rpc_t *rpc, void *context)
{
    push(rpc, context, RING_RELAY, NULL, "expected: EVENT");
}

static void do_multicast(rpc_t *rpc, void *context)
{
    str tag = { NULL, 0 };
    push(rpc, context, RING_MULTICAST, &tag, "expected: TAG EVENT");
}

static void do_unicast(rpc_t *rpc, void *context)
{
    str tag = { NULL, 0 };
    push(rpc, context, RING_UNICAST, &tag, "expected: TAG EVENT");
}

static void do_send(rpc_t *rpc, void *context)
{
    str index = { NULL, 0 };
    push(rpc, context, RING_SEND, &index, "expected: INDEX EVENT");
}

static void do_close(rpc_t *rpc, void *context)
{
    str index = { NULL, 0 };
    if (rpc->scan(context, ".S", &index) < 1) {
        rpc->fault(context, 400, "expected: INDEX");
        return;
    }
    const struct text text = text_literal(&index);
    if (publish_close_index(NULL, &text) < 0)
        rpc->fault(context, 500, "it is not closed: Kamailio's log says why");
}

/* ---- the table ------------------------------------------------------------------------------------------------------ */

#define DOC(name, text) static const char *name[] = { text, NULL }

DOC(status_doc, "Whether evapid is attached, the queue to it, and evapid's own status in short.");
DOC(clients_doc,
    "[AFTER [LIMIT]]: evapid's clients in the order of their indexes: only those with a larger index than AFTER, "
    "and at most LIMIT, 100.");
DOC(stats_doc, "All figures of the statistics group evapi.");
DOC(relay_doc, "EVENT: send it to every client, as evapi_relay does.");
DOC(multicast_doc, "TAG EVENT: send it to every client with the tag, as evapi_multicast does.");
DOC(unicast_doc, "TAG EVENT: send it to one client with the tag, as evapi_unicast does.");
DOC(send_doc, "INDEX EVENT: send it to the connection of that index, as evapi_send does.");
DOC(close_doc, "INDEX: close the connection of that index, as evapi_close does.");

rpc_export_t rpc_commands[] = {
    { "evapi.status", show_status, status_doc, 0 },
    { "evapi.clients", show_clients, clients_doc, 0 },
    { "evapi.stats", show_stats, stats_doc, 0 },
    { "evapi.relay", do_relay, relay_doc, 0 },
    { "evapi.multicast", do_multicast, multicast_doc, 0 },
    { "evapi.unicast", do_unicast, unicast_doc, 0 },
    { "evapi.send", do_send, send_doc, 0 },
    { "evapi.close", do_close, close_doc, 0 },
    { NULL, NULL, NULL, 0 },
};
