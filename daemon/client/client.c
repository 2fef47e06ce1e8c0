/* One client's socket: reading messages, sending frames, and the states between accept and close. */
#include "client/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/state.h"
#include "base/watch.h"
#include "client/books.h"
#include "client/input.h"
#include "client/ledger.h"
#include "client/output.h"
#include "client/pace.h"
#include "events/waits.h"

static struct log_limit failures = { .kind = "clients: connection failures" };

static void client_watch(struct client *client);

const char *client_state_name(enum client_state state)
{
    static const char *const names[] = { "admitting", "open", "finishing", "flushing", "gone" };
    return names[state];
}

/* The only place where the state changes. */
static void client_enter(struct client *client, enum client_state state)
{
    client->state = state;
    if (state != CLIENT_GONE)
        client_watch(client);
}

/* ---- input ----------------------------------------------------------------------------------------------------- */

/* Nothing more will come: the peer ended it (why NULL), or the socket or the stream is broken. */
static void client_end_input(struct client *client, const char *why)
{
    char subject[CLIENT_SUBJECT];
    client_subject(client, subject);
    if (why != NULL)
        log_limited(&failures, LEVEL_INFO, subject, "%s %s %u: %s", client->address, remote_noun(&client->origin),
                    client->port, why);
    input_stop(client);
    if (client->state == CLIENT_OPEN)
        client_enter(client, CLIENT_FINISHING);
    client->host->ended(client);
}

static void client_heed(struct client *client, struct input_verdict verdict)
{
    if (verdict.over)
        client_end_input(client, verdict.why);
}

/* First read what has come meanwhile: the client is not late if evapid had no time to read. */
void client_check_deadline(struct client *client)
{
    for (size_t before = 0; input_is_late(client) && client->input.end - client->input.start > before;) {
        before = client->input.end - client->input.start;
        client_heed(client, input_read(client));
    }
    if (input_is_late(client)) {
        input_end_late(client);
        client_end_input(client, NULL);
    } else if (client->state != CLIENT_GONE) {
        client_watch(client);
    }
}

void client_resume(struct client *client)
{
    if (client->state == CLIENT_ADMITTING)
        return;
    if (client->input.held)
        client_heed(client, input_offer_again(client));
    if (client->state == CLIENT_OPEN)
        client_watch(client);
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

bool client_give(struct client *client, struct chunk *chunk, enum drop_reason *reason)
{
    const bool blocked = output_is_blocked(client);
    const bool given = output_give(client, chunk, reason);
    if (output_is_blocked(client) != blocked)
        client_watch(client); /* sending made room */
    return given;
}

bool client_can_accept(struct client *client, size_t size, enum drop_reason *reason)
{
    const bool blocked = output_is_blocked(client);
    const bool can = output_can_accept(client, size, reason);
    if (output_is_blocked(client) != blocked)
        client_watch(client);
    return can;
}

void client_flush(struct client *client)
{
    output_flush(client);
    if (client->state == CLIENT_FLUSHING && !output_is_blocked(client))
        client_drop(client, DROP_CLOSED);
    else
        client_watch(client);
}

/* ---- the socket ------------------------------------------------------------------------------------------------ */

/* A client that waits for admission has hung up. If it has sent nothing it is forgotten; otherwise it waits on. */
static void client_hung_up(struct client *client)
{
    if (stream_is_quiet(&client->stream))
        input_stop(client);
    if (client->input.over && client->input.bytes == NULL) {
        client->host->ended(client);
        if (client->state == CLIENT_ADMITTING)
            client_watch(client); /* nothing is watched any more */
        return;
    }
    uv_poll_stop(&client->poll); /* otherwise libuv would report it again and again */
    client->watched = 0;
}

static void client_serve(struct client *client, int status, int events)
{
    if (client->state == CLIENT_ADMITTING && (status < 0 || (events & UV_DISCONNECT) != 0)) {
        client_hung_up(client);
        return;
    }
    /* After an error, both a read and a write report it. */
    if (output_is_blocked(client) && (status < 0 || (events & UV_WRITABLE) != 0)) {
        waits_refresh(client->host->waits);
        client_flush(client);
    }
    if (client->state == CLIENT_OPEN && !client->input.held && (status < 0 || (events & UV_READABLE) != 0))
        client_heed(client, input_read(client));
    if (client->state != CLIENT_GONE)
        client_watch(client);
}

static bool turn_is_full(struct slice *polls)
{
    if (polls->until_ns == 0)
        *polls = slice_begin();
    return slice_is_over(polls);
}

/* Thousands of clients may be ready at once. A client for which this turn has no time is postponed and not watched,
 * because libuv would report it again and again within the turn. */
static void client_on_poll(uv_poll_t *poll, int status, int events)
{
    struct client *client = poll->data;
    if (status < 0)
        client->watched = 0; /* libuv has stopped the handle */
    if (status < 0 || !turn_is_full(client->host->polls)) {
        client_serve(client, status, events);
        return;
    }
    client->watched = 0;
    uv_poll_stop(poll);
    client->due |= events;
    if ((events & UV_WRITABLE) != 0)
        output_note_writable(client);
    client->host->postpone(client);
}

void client_attend(struct client *client)
{
    const int events = client->due;
    client->due = 0;
    client_serve(client, 0, events);
}

/* Watch for exactly the events that the state allows. */
static void client_watch(struct client *client)
{
    int events = 0;
    input_time(client);
    if (client->state == CLIENT_OPEN && !client->input.held && !client->input.over)
        events |= UV_READABLE;
    if (client->state == CLIENT_ADMITTING && !client->input.over)
        events |= UV_DISCONNECT;
    if (output_is_blocked(client) && client->state != CLIENT_ADMITTING)
        events |= UV_WRITABLE;
    if (events == client->watched)
        return; /* otherwise libuv would ask the kernel again */
    client->watched = events;
    client->unwatched = false;
    if (events == 0) {
        uv_poll_stop(&client->poll);
        return;
    }
    if (watch_start(&client->poll, events, client_on_poll) == 0)
        return;
    client->watched = 0;
    client->unwatched = true;
}

void client_tick(struct client *client)
{
    if (client->unwatched && client->state != CLIENT_GONE)
        client_watch(client);
}

static void client_set_keepalive(struct client *client, const struct client_limits *limits)
{
    stream_set_keepalive(&client->stream, (struct stream_keepalive){ .idle_s = limits->keepalive_idle_s,
                                                                     .interval_s = limits->keepalive_interval_s,
                                                                     .probes = limits->keepalive_probes });
}

/* The limits that can change at any time without affecting anything under way. */
static void client_apply_limits(struct client *client, const struct client_limits *limits)
{
    input_set_limits(client, limits);
    client->linger_ms = limits->linger_ms;
    pace_set_policy(client, limits->slow_policy);
    client->unicast_mode = limits->unicast_mode;
    client->admission_timeout_ms = limits->admission_timeout_ms;
    client->keep_absent_ms = limits->keep_absent_ms;
}

/* A client on fd; the caller fills in the rest. NULL: no memory, or the socket is unusable. */
static struct client *client_new(uv_loop_t *loop, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                                 const struct client_host *host)
{
    struct client *client = calloc(1, sizeof(*client));
    if (client == NULL || (fd >= 0 && (!watch_has_room(loop, fd) || uv_poll_init(loop, &client->poll, fd) != 0))) {
        free(client);
        return NULL;
    }
    client->poll.data = fd >= 0 ? client : NULL;
    client->poll.loop = loop;
    client->stream = stream_of(fd);
    client->index = slot->index;
    client->slot = slot;
    client->tally = &slot->tally;
    client->host = host;
    output_begin(client);
    client_apply_limits(client, limits);
    return client;
}

static void client_init_out(struct client *client, enum framing framing, const struct client_limits *limits)
{
    outq_init(&client->out, framing, limits->max_queued_bytes);
    client->out.waits = client->host->waits;
}

struct client *client_open(uv_loop_t *loop, int fd, uint32_t index, const struct remote *remote,
                           const struct client_limits *limits, const struct client_host *host)
{
    struct ledger_slot *slot = ledger_claim(host->ledger, index);
    struct client *client = slot != NULL ? client_new(loop, fd, slot, limits, host) : NULL;
    if (client == NULL) {
        if (slot != NULL)
            ledger_release(host->ledger, slot);
        struct stream stream = stream_of(fd);
        stream_close(&stream);
        return NULL;
    }
    client->since_ms = clock_wall_ms();
    memcpy(client->address, remote->address, sizeof(client->address));
    client->port = remote->port;
    client->origin = remote->origin;
    client_init_out(client, limits->framing, limits);
    stream_begin(&client->stream);
    client_set_keepalive(client, limits);
    ledger_introduce(slot, &(struct ledger_newcomer){ .framing = limits->framing,
                                                      .address = client->address,
                                                      .port = client->port,
                                                      .peer = client->origin,
                                                      .since_ms = client->since_ms,
                                                      .connected_ns = histogram_clock_ns(),
                                                      .origin = stream_position(&client->stream),
                                                      .cookie = stream_cookie(&client->stream) });
    client_enter(client, CLIENT_ADMITTING);
    client_time_admission(client);
    if (!client->unwatched)
        return client;
    client_discard(client);
    return NULL;
}

struct client *client_adopt(uv_loop_t *loop, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                            const struct client_host *host)
{
    struct client *client = client_new(loop, fd, slot, limits, host);
    if (client == NULL) {
        struct stream stream = stream_of(fd);
        if (fd >= 0)
            stream_abandon(&stream);
        return NULL;
    }
    client->since_ms = slot->since_ms;
    client->port = slot->port;
    memcpy(client->address, slot->address, sizeof(client->address));
    client->address[sizeof(client->address) - 1] = '\0';
    client->origin = slot->peer;
    client_init_out(client, slot->framing, limits);
    client->state = CLIENT_GONE;
    if (fd >= 0)
        client_enter(client, CLIENT_ADMITTING);
    client_time_admission(client);
    return client;
}

/* Does it wait for its first admission while somebody could admit it? */
static bool client_may_be_admitted(const struct client *client)
{
    return client->host->admits && client->state == CLIENT_ADMITTING && client->slot->standing == STANDING_NEW;
}

void client_time_admission(struct client *client)
{
    const bool runs = client_may_be_admitted(client) && client->admission_timeout_ms > 0;
    client->admit_by_ms = runs ? uv_now(client->poll.loop) + client->admission_timeout_ms : 0;
}

/* Change the time for the admission. It counts from the same start as before. */
static void client_set_admission(struct client *client, uint32_t timeout_ms)
{
    const uint64_t by_ms = client->admit_by_ms + timeout_ms;
    if (!client_may_be_admitted(client) || timeout_ms == client->admission_timeout_ms)
        return;
    if (timeout_ms == 0)
        client->admit_by_ms = 0;
    else if (client->admit_by_ms == 0)
        client->admit_by_ms = uv_now(client->poll.loop) + timeout_ms;
    else
        client->admit_by_ms = by_ms > client->admission_timeout_ms ? by_ms - client->admission_timeout_ms : 1;
}

void client_set_limits(struct client *client, const struct client_limits *limits)
{
    if (client->state == CLIENT_GONE)
        return;
    client_set_admission(client, limits->admission_timeout_ms);
    client_apply_limits(client, limits);
    client_set_keepalive(client, limits);
    outq_set_limit(&client->out, limits->max_queued_bytes);
    pace_note_limits(client);
}

void client_admit(struct client *client)
{
    const bool first = client->slot->standing == STANDING_NEW;
    ledger_note_standing(client->slot, STANDING_ADMITTED);
    if (client->state != CLIENT_ADMITTING)
        return;
    if (first)
        histogram_add(&client->host->ledger->header->meter.admission,
                      histogram_since_ns(client->slot->connected_ns, histogram_clock_ns()), 1);
    client->admit_by_ms = 0;
    client_enter(client, client->input.over ? CLIENT_FINISHING : CLIENT_OPEN);
}

bool client_is_overdue(const struct client *client, uint64_t now_ms)
{
    return client->state == CLIENT_ADMITTING && client->admit_by_ms != 0 && now_ms >= client->admit_by_ms;
}

void client_readmit(struct client *client)
{
    if (client->state != CLIENT_OPEN && client->state != CLIENT_FINISHING)
        return;
    ledger_note_standing(client->slot, STANDING_AGAIN);
    client->due = 0; /* until it is admitted, nothing is sent or read */
    client_enter(client, CLIENT_ADMITTING);
}

static void client_flush_out(struct client *client)
{
    if (outq_is_empty(&client->out) || client->subscription.failed) {
        client_drop(client, DROP_CLOSED);
        return;
    }
    client->deadline_ms = uv_now(client->poll.loop) + client->linger_ms;
    client_enter(client, CLIENT_FLUSHING);
}

void client_finish(struct client *client)
{
    if (client->state == CLIENT_FLUSHING || client->state == CLIENT_GONE)
        return;
    input_discard(client);
    if (client->state == CLIENT_ADMITTING)
        books_count_dropped(client, DROP_CLOSED, outq_keep_begun(&client->out));
    client_flush_out(client);
}

void client_cut_off(struct client *client, enum drop_reason reason)
{
    if (client->state == CLIENT_FLUSHING || client->state == CLIENT_GONE)
        return;
    books_count_dropped(client, reason, outq_keep_begun(&client->out));
    input_stop(client);
    client_flush_out(client);
}

static void client_on_poll_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    client->poll.data = NULL;
    if (client->host == NULL)
        free(client);
}

static void client_close_socket(struct client *client)
{
    output_stop(client);
    input_stop(client);
    client_enter(client, CLIENT_GONE);
    uv_close((uv_handle_t *)&client->poll, client_on_poll_closed);
    stream_close(&client->stream);
}

void client_drop(struct client *client, enum drop_reason reason)
{
    if (client->state == CLIENT_GONE)
        return;
    books_count_dropped(client, reason, outq_clear(&client->out));
    client_close_socket(client);
    client->host->gone(client);
}

void client_discard(struct client *client)
{
    client_close_socket(client);
    client_free(client);
}

void client_abandon(struct client *client)
{
    client->host = NULL; /* tells the poll's callback to free it; without a socket there is no poll */
    if (client->stream.fd >= 0) {
        uv_close((uv_handle_t *)&client->poll, client_on_poll_closed);
        stream_abandon(&client->stream);
    } else if (client->poll.data == NULL) {
        free(client);
    }
}

void client_free(struct client *client)
{
    input_discard(client);
    ledger_release(client->host->ledger, client->slot);
    client->host = NULL;
    if (client->poll.data == NULL)
        free(client);
}

void client_set_listener(struct client *client, struct listener *listener)
{
    client->listener = listener;
}

void client_set_seat(struct client *client, void *seat)
{
    client->seat = seat;
}

uint64_t client_idle_ms(const struct client *client)
{
    const uint64_t now_ms = uv_now(client->poll.loop);
    const uint64_t read_ms = client->input.read_ns / 1000000;
    const uint64_t last_ms = read_ms > client->output.sent_ms ? read_ms : client->output.sent_ms;
    return now_ms > last_ms ? now_ms - last_ms : 0;
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void client_save(struct client *client, struct state_out *out)
{
    books_note_given(client);
    const uint64_t now_ms = uv_now(client->poll.loop);
    state_put(out, "state", (uint64_t)client->state);
    state_put(out, "blocked", output_is_blocked(client) || (client->roster.dirty && client->state != CLIENT_ADMITTING));
    state_put(out, "deadline-ms", client->deadline_ms > now_ms ? client->deadline_ms - now_ms : 0);
    state_put(out, "admit-by", client->admit_by_ms != 0);
    state_put(out, "admit-by-ms", client->admit_by_ms > now_ms ? client->admit_by_ms - now_ms : 0);
    state_put_record(out, "stream");
    stream_save(&client->stream, out);
    state_put_end(out);
    state_put_record(out, "input");
    input_save(client, out);
    state_put_end(out);
    state_put_record(out, "output");
    outq_save(&client->out, out);
    state_put_end(out);
}

/* Its socket was not handed over: nothing more is read or sent. */
static void client_lose(struct client *client)
{
    input_stop(client);
    output_stop(client);
    client->out.followed = false;
    books_count_dropped(client, DROP_LOST, outq_clear(&client->out));
    const struct tally *tally = client->tally; /* includes what the run held for it */
    books_count_dropped(client, DROP_LOST, tally->relayed - tally->delivered - tally_dropped(tally));
}

bool client_load(struct client *client, struct state_in *in, bool *lost)
{
    const uint64_t state = state_get(in, "state", CLIENT_ADMITTING);
    const uint64_t now_ms = uv_now(client->poll.loop);
    output_restore(client, state_get(in, "blocked", 0) == 1);
    client->deadline_ms = now_ms + state_get(in, "deadline-ms", 0);
    const bool admit_by = state_get(in, "admit-by", 0) == 1;
    client->admit_by_ms = (now_ms + state_get(in, "admit-by-ms", 0)) * admit_by;
    if (state > CLIENT_GONE || (state == CLIENT_GONE && client->stream.fd >= 0) || in->at.failed)
        return state_fail(in);
    state_get_record(in, "stream");
    if (!stream_load(&client->stream, in))
        return state_fail(in);
    state_get_end(in);
    state_get_record(in, "input");
    if (!input_load(client, in))
        return false;
    state_get_end(in);
    state_get_record(in, "output");
    if (!outq_load(&client->out, in))
        return false;
    state_get_end(in);
    *lost = client->stream.fd < 0 && state != CLIENT_GONE;
    if (*lost)
        client_lose(client);
    else if (client->stream.fd >= 0)
        client_enter(client, (enum client_state)state);
    return true;
}
