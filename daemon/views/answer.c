/* Builds answers. They are written directly into one buffer of a fixed size: no asker can make evapid use memory, or
 * take longer than one look at each client. */
#include "views/answer.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/clock.h"
#include "client/subscription.h"
#include "kamailio/progress.h"

/* Seconds since then; 0 if the wall clock has been set back. */
static uint64_t seconds_since(uint64_t then_ms)
{
    const uint64_t now_ms = clock_wall_ms();
    return now_ms > then_ms ? (now_ms - then_ms) / 1000 : 0;
}

#define TAIL 64U /* bytes left free in a list for what follows it */

/* Did the writing since `before` leave enough room? If not, undo it: the list ends there. */
static bool leaves_room(struct wire_cursor *c, const struct wire_cursor *before)
{
    const bool leaves = !c->failed && (size_t)(c->end - c->at) >= TAIL;
    if (!leaves)
        *c = *before;
    return leaves;
}

static void put_string(struct wire_cursor *c, const char *name, const char *text)
{
    answer_put_text(c, name, text, strlen(text));
}

/* ---- the status ----------------------------------------------------------------------------------------------------- */

static void put_attachment(struct wire_cursor *c, const struct kamailio *kamailio)
{
    answer_put_struct(c, "kamailio");
    put_string(c, "state", kamailio->attachment.state == DETACHED ? "detached" : "attached");
    if (kamailio->attachment.state != DETACHED) {
        answer_put_number(c, "pid", kamailio->attachment.pid);
        put_string(c, "version", kamailio->attachment.kamailio_version);
        put_string(c, "module", kamailio->attachment.module_version);
        answer_put_number(c, "attached_s", seconds_since(kamailio->attachment.since_ms));
        answer_put_number(c, "workers_declared", kamailio->attachment.workers_declared);
    }
    answer_put_end(c);
}

static void put_workers(struct wire_cursor *c, const struct kamailio *kamailio)
{
    answer_put_list(c, "workers");
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++) {
        const struct worker *worker = kamailio->attachment.workers[i];
        if (worker == NULL)
            continue;
        answer_put_struct(c, "");
        answer_put_number(c, "index", i);
        answer_put_number(c, "pid", worker->pid);
        answer_put_number(c, "clients", worker->seats.count);
        answer_put_number(c, "in_flight", worker->in_flight);
        answer_put_number(c, "waiting", worker->seats.waiting_count);
        answer_put_end(c);
    }
    answer_put_end(c);
}

static void put_ring(struct wire_cursor *c, const struct kamailio *kamailio)
{
    static const char *const states[] = { "running", "held", "corrupt" };
    const struct intake *intake = kamailio->attachment.intake;
    if (intake == NULL)
        return;
    answer_put_struct(c, "ring");
    put_string(c, "state", states[intake->state]);
    answer_put_number(c, "capacity", intake->ring.capacity);
    answer_put_number(c, "used", intake_used(intake));
    answer_put_number(c, "high_water", intake->high_water);
    answer_put_number(c, "stale", kamailio->stale);
    answer_put_number(c, "stuck", intake_is_stuck(intake));
    answer_put_end(c);
}

static void put_listener(struct wire_cursor *c, const struct listener *listener)
{
    answer_put_struct(c, "");
    put_string(c, "address", listener->name);
    put_string(c, "framing", framing_name(listener->limits.framing));
    put_string(c, "unicast_mode", unicast_mode_name(listener->limits.unicast_mode));
    put_string(c, "source", listener->source == LISTENER_CONFIG ? "config" : "module");
    put_string(c, "state", listener_state_name(listener->state));
    answer_put_number(c, "clients", listener->clients);
    answer_put_number(c, "max_clients", listener->max_clients);
    answer_put_number(c, "accepted", listener->accepted);
    answer_put_number(c, "refused", listener_refused(listener));
    answer_put_end(c);
}

static void put_status(struct wire_cursor *c, const struct status_subject *subject)
{
    const struct bus *bus = subject->bus;
    const struct listener *listener = NULL;
    put_string(c, "version", EVAPID_VERSION);
    answer_put_number(c, "pid", (uint64_t)getpid());
    answer_put_number(c, "uptime_s", (uv_now(bus->loop) - subject->started_ms) / 1000);
    answer_put_number(c, "session", subject->kamailio->attachment.session);
    answer_put_number(c, "clients", HASH_COUNT(bus->roster.clients));
    answer_put_number(c, "admitted", bus->roster.receiver_count);
    put_attachment(c, subject->kamailio);
    put_ring(c, subject->kamailio);
    put_workers(c, subject->kamailio);
    answer_put_list(c, "listeners");
    DL_FOREACH(subject->listeners->first, listener)
    {
        const struct wire_cursor before = *c;
        put_listener(c, listener);
        if (!leaves_room(c, &before))
            break;
    }
    answer_put_end(c);
}

/* ---- the clients ---------------------------------------------------------------------------------------------------- */

/* Choose the clients with the lowest indexes after query->after, in that order. *left: how many more follow them. The
 * hash need not be sorted by index: inherited clients stand in it as they were read. */
static unsigned choose_clients(const struct bus *bus, const struct wire_query *query,
                               struct client *chosen[ANSWER_CLIENTS_MAX], uint64_t *left)
{
    const unsigned most = query->limit < ANSWER_CLIENTS_MAX ? query->limit : ANSWER_CLIENTS_MAX;
    unsigned count = 0;
    *left = 0;
    for (struct client *client = bus->roster.clients; client != NULL; client = client->hh.next) {
        if (client->index <= query->after)
            continue;
        unsigned at = count;
        while (at > 0 && chosen[at - 1]->index > client->index)
            at--;
        *left += count == most;
        if (at == most)
            continue;
        count += count < most;
        memmove(chosen + at + 1, chosen + at, (count - at - 1) * sizeof(struct client *));
        chosen[at] = client;
    }
    return count;
}

static void put_client(struct wire_cursor *c, struct client *client)
{
    char address[EVAPID_ADDRESS_MAX + 16];
    const struct tally *tally = subscription_tally(client);
    const char *form = strchr(client->address, ':') != NULL ? "[%s]:%u" : "%s:%u";
    snprintf(address, sizeof(address), form, client->address, client->port);
    answer_put_struct(c, "");
    answer_put_number(c, "index", client->index);
    put_string(c, "address", address);
    put_string(c, "listener", client->listener != NULL ? listener_name(client->listener) : "");
    answer_put_text(c, "tag", client->tagging.tag != NULL ? client->tagging.tag->name : "",
                    client->tagging.tag != NULL ? client->tagging.tag->length : 0);
    put_string(c, "state", client_state_name(client->state));
    answer_put_number(c, "connected_s", seconds_since(client->since_ms));
    answer_put_number(c, "slow", client->pace.slow_since_ms != 0);
    answer_put_number(c, "relayed", tally->relayed);
    answer_put_number(c, "delivered", tally->delivered);
    answer_put_number(c, "queued", outq_events(&client->out));
    answer_put_number(c, "queued_bytes", outq_bytes(&client->out));
    answer_put_number(c, "dropped", tally_dropped(tally));
    answer_put_number(c, "messages", tally->messages);
    answer_put_number(c, "messages_waiting", tally_messages_waiting(tally));
    answer_put_number(c, "messages_dropped", tally_messages_dropped(tally));
    answer_put_end(c);
}

static void put_clients(struct wire_cursor *c, const struct bus *bus, const struct wire_query *query)
{
    struct client *chosen[ANSWER_CLIENTS_MAX];
    uint64_t left = 0;
    const unsigned count = choose_clients(bus, query, chosen, &left);
    unsigned shown = 0;
    answer_put_number(c, "total", HASH_COUNT(bus->roster.clients));
    answer_put_list(c, "clients");
    for (; shown < count; shown++) {
        const struct wire_cursor before = *c;
        put_client(c, chosen[shown]);
        if (!leaves_room(c, &before))
            break;
    }
    answer_put_end(c);
    answer_put_number(c, "shown", shown);
    answer_put_number(c, "left", left + count - shown);
}

/* ---- answering ------------------------------------------------------------------------------------------------------ */

size_t answer_write(const struct status_subject *subject, const struct wire_query *query, void *out, size_t room)
{
    struct wire_cursor c = wire_begin(out, room);
    if (query->subject == WIRE_ASK_STATUS)
        put_status(&c, subject);
    else
        put_clients(&c, subject->bus, query);
    return wire_finish(&c, out, WIRE_ANSWER, 0);
}

void answer_query(struct worker *worker, const struct wire_query *query)
{
    static unsigned char frame[WIRE_HEADER + WIRE_ANSWER_MAX];
    struct kamailio *kamailio = worker->host->owner;
    progress_catch_up(kamailio);
    const size_t length = answer_write(kamailio->answerer.subject, query, frame, sizeof(frame));
    worker_answer(worker, frame, length);
}
