/* The requests of the control socket. */
#include "control/requests.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "bus/flush.h"
#include "bus/kept.h"
#include "bus/roster.h"
#include "kamailio/progress.h"
#include "views/metrics.h"

#define SUBJECT "control"

static struct log_limit changes = { .kind = "control: changes" };

/* A request in progress. */
struct call {
    const struct request_subject *subject;
    json_t *request;
    struct request_reply *reply;
};

static struct bus *bus_of(const struct call *call)
{
    return call->subject->status->bus;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* A text that was cut, ours or a quotation by the JSON reader, may end within a character. Bytes that an answer cannot
 * contain become question marks. */
static void make_utf8(char *text)
{
    json_t *good = json_string(text);
    for (; good == NULL && *text != '\0'; text++)
        if ((unsigned char)*text >= 0x80)
            *text = '?';
    json_decref(good);
}

__attribute__((format(printf, 3, 4))) static void refuse(struct request_reply *reply, const char *error,
                                                         const char *format, ...)
{
    va_list args;
    va_start(args, format);
    reply->error = error;
    vsnprintf(reply->detail, sizeof(reply->detail), format, args);
    va_end(args);
    make_utf8(reply->detail);
}

/* Read the request's members beside its command, in json_unpack's format. Refuses unknown members and wrong types. */
static bool take(const struct call *call, const char *format, ...)
{
    json_error_t bad;
    va_list args;
    va_start(args, format);
    const int error = json_vunpack_ex(call->request, &bad, JSON_STRICT, format, args);
    va_end(args);
    if (error != 0)
        refuse(call->reply, "bad request", "%s", bad.text);
    return error == 0;
}

/* "limit": the most that are wanted; -1: not given. */
static bool take_limit(const struct call *call, json_int_t said, size_t *limit)
{
    *limit = said < 0 ? SIZE_MAX : (size_t)said;
    if (said >= -1)
        return true;
    refuse(call->reply, "bad request", "limit is negative");
    return false;
}

static bool tag_is_good(const struct call *call, size_t length)
{
    if (length <= EVAPID_TAG_MAX)
        return true;
    refuse(call->reply, "bad request", "a tag has at most %d bytes", EVAPID_TAG_MAX);
    return false;
}

static struct client *find_client(const struct call *call, json_int_t index)
{
    struct client *client = index > 0 && index <= INT32_MAX ? roster_find(bus_of(call), (uint32_t)index) : NULL;
    if (client == NULL)
        refuse(call->reply, "no such client", "%lld: evapictl clients shows those that there are", (long long)index);
    return client;
}

/* For requests that only look: read what Kamailio has just sent, so that the answer counts it and shows what still
 * waits in the queue. */
static void catch_up(const struct call *call)
{
    progress_catch_up(call->subject->status->kamailio);
}

/* For requests that change something: everything that Kamailio has said before must take effect first. False: evapid
 * has not read all of it yet. */
static bool in_turn(const struct call *call)
{
    struct kamailio *kamailio = call->subject->status->kamailio;
    if (call->subject->in_turn)
        return true;
    call->reply->mark = progress_catch_up_to(kamailio);
    call->reply->later = !progress_can_go_on(kamailio, call->reply->mark);
    return !call->reply->later;
}

/* The client to be changed, if it is still connected. Also NULL if it is not the request's turn yet. */
static struct client *connected_in_turn(const struct call *call, json_int_t index)
{
    struct client *client = in_turn(call) ? find_client(call, index) : NULL;
    if (client == NULL || client->state != CLIENT_GONE)
        return client;
    refuse(call->reply, "no such client", "%lld has gone", (long long)index);
    return NULL;
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

static void answer_status(const struct call *call)
{
    if (!take(call, "{}"))
        return;
    catch_up(call);
    call->reply->report = report_status(call->subject->status);
}

static void answer_kamailio(const struct call *call)
{
    if (!take(call, "{}"))
        return;
    catch_up(call);
    call->reply->answer = json_pack("{s:o}", "kamailio", describe_kamailio(call->subject->status->kamailio));
}

static void answer_listeners(const struct call *call)
{
    if (take(call, "{}"))
        call->reply->answer = json_pack("{s:o}", "listeners", describe_listeners(call->subject->status->listeners));
}

static void answer_tags(const struct call *call)
{
    json_int_t said = -1;
    size_t limit = 0;
    if (!take(call, "{s?I}", "limit", &said) || !take_limit(call, said, &limit))
        return;
    catch_up(call);
    call->reply->report = report_tags(bus_of(call), limit);
}

static void answer_clients(const struct call *call)
{
    struct selection_words words = { 0 };
    struct selection selection;
    json_int_t limit = -1;
    json_int_t idle_s = 0;
    int slow = 0;
    if (!take(call, "{s?s%, s?s, s?s, s?b, s?s, s?I, s?I}", "tag", &words.tag, &words.tag_length, "address",
              &words.address, "state", &words.state, "slow", &slow, "sort", &words.sort, "limit", &limit, "idle_s",
              &idle_s))
        return;
    words.slow = slow != 0;
    words.idle_s = idle_s;
    const char *why = selection_read(&selection, &words);
    if (why != NULL)
        refuse(call->reply, "bad request", "%s", why);
    if (why != NULL || !take_limit(call, limit, &selection.limit))
        return;
    catch_up(call);
    call->reply->report = report_clients(&selection, bus_of(call));
}

static void answer_client(const struct call *call)
{
    json_int_t index = 0;
    if (!take(call, "{s:I}", "client", &index))
        return;
    catch_up(call);
    struct client *client = find_client(call, index);
    if (client != NULL)
        call->reply->answer = json_pack("{s:o}", "client", describe_client(client));
}

static void answer_ready(const struct call *call)
{
    if (!take(call, "{}"))
        return;
    catch_up(call);
    const char *why = metrics_objection(call->subject->status);
    call->reply->answer = json_pack("{s:b, s:s?}", "ready", why == NULL, "reason", why);
}

static void answer_config(const struct call *call)
{
    if (take(call, "{}"))
        call->reply->report = report_config(call->subject->status->config);
}

/* A reset answers with the counts before it, so that nothing in between is lost. */
static void answer_stats(const struct call *call)
{
    int reset = 0;
    const struct status_subject *status = call->subject->status;
    if (!take(call, "{s?b}", "reset", &reset))
        return;
    catch_up(call);
    const struct stats since = stats_since(call->subject->stats, status->bus);
    const uint64_t uptime_ms = uv_now(status->bus->loop) - status->started_ms;
    call->reply->answer =
        json_pack("{s:s, s:I, s:b, s:o, s:o}", "version", EVAPID_VERSION, "uptime_s", (json_int_t)(uptime_ms / 1000),
                  "reset", reset, "totals", describe_totals(status), "since_reset", describe_since(&since));
    if (reset && call->reply->answer != NULL)
        stats_reset(call->subject->stats, status->bus);
}

/* ---- changing --------------------------------------------------------------------------------------------------- */

/* Logged at the more verbose of the two levels: a log that becomes silent should say why. */
static void set_log_level(enum log_level level)
{
    if (level > log_level())
        log_set_level(level);
    log_limited(&changes, LEVEL_NOTICE, SUBJECT, "the log level is %s now", log_level_name(level));
    log_set_level(level);
}

static void answer_log(const struct call *call)
{
    const char *name = NULL;
    enum log_level level = log_level();
    if (!take(call, "{s?s}", "level", &name))
        return;
    if (name != NULL && !log_level_find(name, &level)) {
        refuse(call->reply, "bad request", "level must be one of error, warning, notice, info or debug");
        return;
    }
    if (name != NULL)
        set_log_level(level);
    call->reply->answer = json_pack("{s:{s:s}}", "log", "level", log_level_name(level));
}

static void answer_reload(const struct call *call)
{
    struct reload_outcome outcome = { 0 };
    if (!take(call, "{}"))
        return;
    const char *why = call->subject->reload(call->subject->owner, &outcome);
    if (why != NULL)
        refuse(call->reply, "not reloaded", "%s", why);
    else
        call->reply->answer = json_pack("{s:{s:I, s:I, s:I, s:o}}", "reload", "listeners_added",
                                        (json_int_t)outcome.added, "listeners_removed", (json_int_t)outcome.removed,
                                        "clients_closed", (json_int_t)outcome.revoked, "changed", outcome.changed);
}

static bool client_has_tag(const struct client *client, const char *tag, size_t length)
{
    return length == 0 ? client->tagging.tag == NULL
                       : client->tagging.tag != NULL && client->tagging.tag->length == length &&
                             memcmp(client->tagging.tag->name, tag, length) == 0;
}

static void answer_tag(const struct call *call)
{
    json_int_t index = 0;
    const char *tag = NULL;
    size_t length = 0;
    if (!take(call, "{s:I, s:s%}", "client", &index, "tag", &tag, &length) || !tag_is_good(call, length))
        return;
    struct client *client = connected_in_turn(call, index);
    if (client == NULL)
        return;
    bus_tag(bus_of(call), client, tag, length);
    if (!client_has_tag(client, tag, length))
        return; /* memory is short */
    log_limited(&changes, LEVEL_INFO, SUBJECT, "the tag of client %u has been set", client->index);
    json_t *now = length > 0 ? json_stringn(tag, length) : json_null();
    call->reply->answer = json_pack("{s:{s:I, s:o}}", "tagged", "client", index, "tag", now);
}

static void answer_close(const struct call *call)
{
    json_int_t index = 0;
    if (!take(call, "{s:I}", "client", &index))
        return;
    struct client *client = connected_in_turn(call, index);
    if (client == NULL)
        return;
    call->reply->answer = json_pack("{s:{s:I}}", "closed", "client", index);
    log_limited(&changes, LEVEL_INFO, SUBJECT, "client %u is being closed", client->index);
    flush_finish(bus_of(call), client); /* may free the client */
}

static void answer_forget(const struct call *call)
{
    const char *name = NULL;
    size_t length = 0;
    if (!take(call, "{s:s%}", "tag", &name, &length) || !tag_is_good(call, length) || !in_turn(call))
        return;
    struct bus *bus = bus_of(call);
    const struct tag *tag = tag_find(&bus->tags, name, length);
    if (tag == NULL || tag->kept == NULL) {
        refuse(call->reply, "no such tag", "no tag of this name is kept: evapictl tags shows those that are");
        return;
    }
    call->reply->answer = json_pack("{s:{s:o, s:I}}", "forgotten", "tag", describe_bytes(name, length), "events",
                                    (json_int_t)kept_waiting(tag->kept));
    kept_close(bus, tag->kept, "for it was asked to be forgotten");
    bus->upstream.commit(bus->upstream.owner);
}

/* ---- publishing and looking on ----------------------------------------------------------------------------------- */

static json_t *describe_published(uint64_t events, uint64_t bytes, uint64_t receivers)
{
    return json_pack("{s:{s:I, s:I, s:I, s:I}}", "published", "events", (json_int_t)events, "bytes", (json_int_t)bytes,
                     "received", (json_int_t)(receivers > 0), "receivers", (json_int_t)receivers);
}

static void publish_one(const struct call *call, const struct address_label *to, const char *event, size_t length)
{
    if (!in_turn(call))
        return;
    const uint32_t receivers = publish(bus_of(call), to, event, length);
    publish_commit(bus_of(call));
    call->reply->answer = describe_published(1, length, receivers);
}

static void begin_publication(const struct call *call, const struct address_label *to)
{
    if (call->subject->publications >= PUBLICATIONS_MAX) {
        refuse(call->reply, "too many", "%u programs are publishing: try again later", PUBLICATIONS_MAX);
        return;
    }
    if (!in_turn(call))
        return;
    call->reply->publication = publication_open(to);
    if (call->reply->publication != NULL)
        call->reply->answer = describe_published(0, 0, 0);
}

/* What is published: one event, or those of a stream. */
struct wanted {
    const char *event; /* NULL: not given */
    size_t length;
    int stream;
};

static void publish_wanted(const struct call *call, const struct address_label *to, const struct wanted *wanted)
{
    if (call->subject->status->kamailio->stopping)
        refuse(call->reply, "stopping", "evapid is ending");
    else if ((wanted->event != NULL) == (wanted->stream != 0))
        refuse(call->reply, "bad request", "either event or stream is needed");
    else if (wanted->event != NULL)
        publish_one(call, to, wanted->event, wanted->length);
    else
        begin_publication(call, to);
}

static void answer_relay(const struct call *call)
{
    struct wanted wanted = { .event = NULL };
    if (take(call, "{s?s%, s?b}", "event", &wanted.event, &wanted.length, "stream", &wanted.stream))
        publish_wanted(call, &(struct address_label){ .kind = EVENT_RELAY }, &wanted);
}

static void publish_to_tag(const struct call *call, enum event_kind kind)
{
    struct wanted wanted = { .event = NULL };
    struct address_label to = { .kind = kind };
    const char *tag = NULL;
    if (!take(call, "{s:s%, s?s%, s?b}", "tag", &tag, &to.tag_length, "event", &wanted.event, &wanted.length, "stream",
              &wanted.stream) ||
        !tag_is_good(call, to.tag_length))
        return;
    memcpy(to.tag, tag, to.tag_length);
    publish_wanted(call, &to, &wanted);
}

static void answer_multicast(const struct call *call)
{
    publish_to_tag(call, EVENT_MULTICAST);
}

static void answer_unicast(const struct call *call)
{
    publish_to_tag(call, EVENT_UNICAST);
}

static void answer_send(const struct call *call)
{
    struct wanted wanted = { .event = NULL };
    json_int_t index = 0;
    if (!take(call, "{s:I, s?s%, s?b}", "client", &index, "event", &wanted.event, &wanted.length, "stream",
              &wanted.stream))
        return;
    const struct client *client = connected_in_turn(call, index);
    if (client != NULL)
        publish_wanted(call, &(struct address_label){ .kind = EVENT_SEND, .index = client->index }, &wanted);
}

static void answer_tail(const struct call *call)
{
    struct tail_filter filter = { .out = true, .in = true };
    const char *direction = NULL;
    const char *tag = NULL;
    json_int_t index = 0;
    const bool by_client = json_object_get(call->request, "client") != NULL;
    if (!take(call, "{s?s, s?s%, s?I}", "direction", &direction, "tag", &tag, &filter.tag_length, "client", &index) ||
        !tag_is_good(call, filter.tag_length) || (by_client && find_client(call, index) == NULL))
        return;
    filter.client = (uint32_t)index;
    if (direction != NULL) {
        filter.out = strcmp(direction, "out") == 0;
        filter.in = strcmp(direction, "in") == 0;
    }
    filter.by_tag = tag != NULL;
    if (tag != NULL)
        memcpy(filter.tag, tag, filter.tag_length);
    if (!filter.out && !filter.in)
        refuse(call->reply, "bad request", "direction must be in or out");
    else if (call->subject->tails->count >= TAILS_MAX)
        refuse(call->reply, "too many", "%u programs look on already: end one of them", TAILS_MAX);
    else if ((call->reply->tail = tail_open(call->subject->tails, bus_of(call), &filter)) != NULL)
        call->reply->answer = json_pack("{s:b}", "tail", true);
}

static void answer_replace(const struct call *call)
{
    if (take(call, "{}"))
        call->reply->replace = true;
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

static const struct request {
    const char *command;
    void (*answer)(const struct call *call);
} requests[] = {
    { "status", answer_status },
    { "clients", answer_clients },
    { "client", answer_client },
    { "tags", answer_tags },
    { "listeners", answer_listeners },
    { "kamailio", answer_kamailio },
    { "stats", answer_stats },
    { "config", answer_config },
    { "ready", answer_ready },
    { "log", answer_log },
    { "tag", answer_tag },
    { "close", answer_close },
    { "forget", answer_forget },
    { "relay", answer_relay },
    { "multicast", answer_multicast },
    { "unicast", answer_unicast },
    { "send", answer_send },
    { "tail", answer_tail },
    { "reload", answer_reload },
    { "replace", answer_replace },
};

static const struct request *request_find(const json_t *command)
{
    const char *name = json_string_value(command);
    for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++)
        if (strlen(requests[i].command) == json_string_length(command) && strcmp(name, requests[i].command) == 0)
            return &requests[i];
    return NULL;
}

static void request_dispatch(const struct call *call)
{
    const json_t *command = json_object_get(call->request, "command");
    const struct request *request = json_is_string(command) ? request_find(command) : NULL;
    if (!json_is_string(command))
        refuse(call->reply, "no command", "expected {\"command\": \"...\"}");
    else if (request == NULL)
        refuse(call->reply, "unknown command", "%s", json_string_value(command));
    else if (json_object_del(call->request, "command") == 0)
        request->answer(call);
}

void request_do(const struct request_subject *subject, const char *line, size_t length, struct request_reply *reply)
{
    json_error_t bad;
    const struct call call = { .subject = subject,
                               .request = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &bad),
                               .reply = reply };
    *reply = (struct request_reply){ .answer = NULL };
    if (call.request == NULL)
        refuse(reply, "not JSON", "%s", bad.text);
    else
        request_dispatch(&call);
    json_decref(call.request);
    if (reply->answer == NULL && reply->report == NULL && reply->error == NULL && !reply->replace && !reply->later)
        refuse(reply, "no memory", "try again");
    if (reply->answer == NULL && reply->tail != NULL)
        tail_close(subject->tails, reply->tail);
    if (reply->answer == NULL)
        publication_close(reply->publication);
}
