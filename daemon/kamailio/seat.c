/* The life of a seat. */
#include "kamailio/seat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/log.h"
#include "base/slice.h"
#include "base/state.h"
#include "bus/flush.h"
#include "bus/roster.h"
#include "client/books.h"
#include "client/ledger.h"
#include "kamailio/progress.h"

/* The only place where a seat's state changes. */
static void seat_enter(struct kamailio *kamailio, struct seat *seat, enum seat_state state)
{
    struct seats *seats = &kamailio->seats;
    seats->announced += (state == SEAT_ANNOUNCED) - (seat->state == SEAT_ANNOUNCED);
    seat->state = state;
}

static void seat_enqueue(struct seat *seat)
{
    struct worker_seats *served = &seat->worker->seats;
    if (seat->queued)
        return;
    seat->queued = true;
    DL_APPEND2(served->waiting, seat, waiting_prev, waiting_next);
    served->waiting_count++;
}

static void seat_wait(struct kamailio *kamailio, struct seat *seat)
{
    progress_await_done(kamailio, seat->worker);
    seat_enqueue(seat);
}

static void seat_wait_no_more(struct seat *seat)
{
    struct worker_seats *served = NULL;
    if (!seat->queued)
        return;
    served = &seat->worker->seats;
    seat->queued = false;
    DL_DELETE2(served->waiting, seat, waiting_prev, waiting_next);
    served->waiting_count--;
}

static void seat_add_unplaced(struct kamailio *kamailio, struct seat *seat)
{
    struct seats *seats = &kamailio->seats;
    DL_APPEND(seats->unplaced, seat);
}

static void seat_remove_unplaced(struct kamailio *kamailio, struct seat *seat)
{
    struct seats *seats = &kamailio->seats;
    DL_DELETE(seats->unplaced, seat); /* NOLINT(clang-analyzer-core.NullDereference): it is in that list */
}

/* Move a seat from the unplaced ones to a worker. */
static void seat_join(struct kamailio *kamailio, struct seat *seat, struct worker *worker)
{
    struct worker_seats *served = &worker->seats;
    seat_remove_unplaced(kamailio, seat);
    seat->worker = worker;
    DL_APPEND(served->first, seat);
    served->count++;
}

/* Remove the seat from its worker, or from the unplaced ones. */
static void seat_unlink(struct kamailio *kamailio, struct seat *seat)
{
    struct worker_seats *served = NULL;
    if (seat->worker == NULL) {
        seat_remove_unplaced(kamailio, seat);
        return;
    }
    served = &seat->worker->seats;
    seat_wait_no_more(seat);
    DL_DELETE(served->first, seat);
    served->count--;
    seat->worker = NULL;
}

static void seat_discard(struct seat *seat)
{
    struct post *post = NULL;
    while ((post = seat->returned) != NULL) {
        DL_DELETE(seat->returned, post);
        free(post);
    }
    free(seat->announcement);
    free(seat->farewell);
    free(seat);
}

static void seat_free(struct kamailio *kamailio, struct seat *seat)
{
    struct client *client = seat->client;
    seat_unlink(kamailio, seat);
    seat_discard(seat);
    bus_release(kamailio->bus, client);
}

bool seat_open(struct kamailio *kamailio, struct client *client)
{
    struct seat *seat = calloc(1, sizeof(*seat));
    if (seat == NULL)
        return false;
    seat->announcement = post_new(WIRE_NEW, seat, NULL, 0);
    seat->farewell = post_new(WIRE_CLOSED, seat, NULL, 0);
    if (seat->announcement == NULL || seat->farewell == NULL) {
        seat_discard(seat);
        return false;
    }
    seat->client = client;
    client_set_seat(client, seat);
    seat_add_unplaced(kamailio, seat);
    if (kamailio->attachment.state == ATTACHED)
        seat_place_all(kamailio);
    return true;
}

/* ---- to the worker --------------------------------------------------------------------------------------------- */

static bool window_is_open(const struct kamailio *kamailio, const struct worker *worker)
{
    return worker->in_flight < kamailio->config->worker_window_frames &&
           worker->in_flight_bytes < kamailio->config->worker_window_bytes;
}

static void seat_post(struct kamailio *kamailio, struct seat *seat, struct post *post)
{
    const struct client *client = seat->client;
    const struct tag *tag = client->tagging.tag;
    const bool is_user = client->origin.version == NETWORK_USER;
    char user[WIRE_USER_MAX + 1];
    if (is_user)
        snprintf(user, sizeof(user), WIRE_USER "%u", client->port);
    const char *address = is_user ? user : client->address;
    const struct wire_event event = { .connection = client->index,
                                      .port = is_user ? 0 : (uint16_t)client->port,
                                      .again = post->type == WIRE_NEW && client->slot->standing != STANDING_NEW,
                                      .address = { address, strlen(address) },
                                      .tag = { tag != NULL ? tag->name : "", tag != NULL ? tag->length : 0 } };
    if (post->type == WIRE_MESSAGE)
        seat->in_flight++;
    worker_post(seat->worker, post, &event);
    if (post->type != WIRE_MESSAGE)
        progress_await_done(kamailio, seat->worker);
}

static void seat_announce(struct kamailio *kamailio, struct seat *seat)
{
    struct post *post = seat->announcement;
    seat->announcement = NULL;
    bus_readmit(kamailio->bus, seat->client);
    seat_enter(kamailio, seat, SEAT_ANNOUNCED);
    seat_post(kamailio, seat, post);
}

static void seat_say_closed(struct kamailio *kamailio, struct seat *seat)
{
    struct post *post = seat->farewell;
    seat->farewell = NULL;
    seat_enter(kamailio, seat, SEAT_LEAVING);
    seat_post(kamailio, seat, post);
}

/* Serve a seat in its turn: first messages that came back from a dead worker, then those that the client holds. */
static void seat_serve(struct kamailio *kamailio, struct seat *seat)
{
    struct seats *seats = &kamailio->seats;
    while (seat->returned != NULL && window_is_open(kamailio, seat->worker)) {
        struct post *post = seat->returned;
        DL_DELETE(seat->returned, post);
        seat_post(kamailio, seat, post);
    }
    if (seat->returned != NULL) {
        seat_wait(kamailio, seat);
        return;
    }
    seats->serving = seat;
    client_resume(seat->client);
    seats->serving = NULL;
    seat_advance(kamailio, seat);
}

void seat_serve_waiting(struct kamailio *kamailio, struct worker *worker)
{
    for (uint32_t turns = worker->seats.waiting_count; turns > 0 && window_is_open(kamailio, worker); turns--) {
        struct seat *seat = worker->seats.waiting;
        if (seat == NULL)
            return;
        seat_wait_no_more(seat);
        seat_serve(kamailio, seat);
    }
}

bool seat_message(struct kamailio *kamailio, struct seat *seat, const char *bytes, size_t length)
{
    if (seat->state != SEAT_ADMITTED || seat->worker == NULL || kamailio->stopping)
        return false;
    const bool in_turn = seat == kamailio->seats.serving || seat->worker->seats.waiting == NULL;
    struct post *post = in_turn && seat->returned == NULL && window_is_open(kamailio, seat->worker)
                            ? post_new(WIRE_MESSAGE, seat, bytes, length)
                            : NULL;
    if (post == NULL) {
        seat_wait(kamailio, seat);
        return false;
    }
    post->read_ns = seat->client->input.read_ns;
    seat_post(kamailio, seat, post);
    return true;
}

/* ---- from the worker ------------------------------------------------------------------------------------------- */

static void seat_admit(struct kamailio *kamailio, struct seat *seat)
{
    seat_enter(kamailio, seat, SEAT_ADMITTED);
    bus_admit(kamailio->bus, seat->client);
    seat_serve(kamailio, seat);
}

/* A post leaves its link: the announcement and the farewell return to their seat. */
static void seat_keep_post(struct seat *seat, struct post *post)
{
    if (post->type == WIRE_NEW) {
        seat->announcement = post;
    } else if (post->type == WIRE_CLOSED) {
        seat->farewell = post;
    } else {
        seat->in_flight--;
        books_count_route(seat->client);
        free(post);
    }
}

void seat_answered(struct kamailio *kamailio, struct post *post)
{
    struct seat *seat = post->seat;
    const enum wire_type type = post->type;
    seat_keep_post(seat, post);
    if (type == WIRE_NEW)
        seat_admit(kamailio, seat);
    else if (type == WIRE_CLOSED)
        seat_free(kamailio, seat);
    else
        seat_advance(kamailio, seat);
}

void seat_advance(struct kamailio *kamailio, struct seat *seat)
{
    struct client *client = seat->client;
    const bool unsaid = client_has_waiting(client) || seat->returned != NULL;
    if (client->state != CLIENT_GONE) {
        if (client->input.over && !unsaid && seat->in_flight == 0 && seat->state != SEAT_ANNOUNCED)
            flush_finish(kamailio->bus, client); /* this calls us again once the client is gone */
        else if (client->input.over && seat->in_flight > 0)
            progress_await_done(kamailio, seat->worker);
        return;
    }
    if (unsaid)
        return;
    if (seat->state == SEAT_ADMITTED && seat->worker != NULL)
        seat_say_closed(kamailio, seat);
    else if (seat->state == SEAT_WAITING)
        seat_free(kamailio, seat);
}

/* ---- places ---------------------------------------------------------------------------------------------------- */

/* The only worker that may serve the seat, or the one with the fewest clients; NULL: there is none. */
static struct worker *worker_for(const struct kamailio *kamailio, const struct seat *seat)
{
    struct worker *best = NULL;
    if (seat->only_place != 0)
        return kamailio->attachment.workers[seat->only_place - 1];
    for (unsigned i = 0; i < kamailio->attachment.workers_declared; i++) {
        struct worker *worker = kamailio->attachment.workers[i];
        if (worker != NULL && worker->state != WORKER_DEPARTED &&
            (best == NULL || worker->seats.count < best->seats.count))
            best = worker;
    }
    return best;
}

static void seat_place(struct kamailio *kamailio, struct seat *seat, struct worker *worker)
{
    seat->only_place = 0;
    seat_join(kamailio, seat, worker);
    if (seat->state == SEAT_WAITING)
        seat_announce(kamailio, seat);
    else
        seat_serve(kamailio, seat);
}

/* A client that is only being flushed was closed by a Kamailio that has gone: the new one is not told about it. */
static bool seat_wants_place(const struct seat *seat)
{
    return seat->state != SEAT_WAITING || (seat->client->state != CLIENT_FLUSHING && !seat->client->roster.leaving);
}

/* With thousands of clients this takes long, and goes on in the next turns (slice.h). */
static void seat_place_some(struct kamailio *kamailio)
{
    struct seats *seats = &kamailio->seats;
    struct seat *seat = NULL;
    struct seat *next = NULL;
    struct slice slice = slice_begin();
    if (kamailio->stopping)
        return; /* no route is started any more */
    DL_FOREACH_SAFE(seats->unplaced, seat, next)
    {
        struct worker *worker = worker_for(kamailio, seat);
        if (worker == NULL || !seat_wants_place(seat))
            continue;
        if (slice_is_over(&slice)) {
            seats->placing = true;
            return;
        }
        seat_place(kamailio, seat, worker);
    }
}

void seat_place_all(struct kamailio *kamailio)
{
    if (!kamailio->seats.placing)
        seat_place_some(kamailio);
}

void seat_go_on_placing(struct kamailio *kamailio)
{
    struct seats *seats = &kamailio->seats;
    if (!seats->placing)
        return;
    seats->placing = false;
    if (kamailio->attachment.state == ATTACHED)
        seat_place_some(kamailio);
}

void seat_finish_placing(struct kamailio *kamailio)
{
    while (kamailio->seats.placing)
        seat_go_on_placing(kamailio);
}

void seat_forget_workers(struct kamailio *kamailio)
{
    struct seat *seat = NULL;
    DL_FOREACH(kamailio->seats.unplaced, seat)
    seat->only_place = 0;
}

/* A post whose route had begun when the worker went. A message never starts a second route; a connection-new must. If
 * the worker lives, it still runs the route, and the client's next messages wait for that worker. */
static void seat_break_off(struct kamailio *kamailio, struct post *post)
{
    if (kamailio->attachment.abandoned && post->type != WIRE_CLOSED)
        post->seat->only_place = (uint16_t)(post->seat->worker->index + 1);
    if (post->type != WIRE_NEW) {
        seat_answered(kamailio, post);
        return;
    }
    seat_enter(kamailio, post->seat, SEAT_WAITING);
    seat_keep_post(post->seat, post);
}

/* A post whose route had not begun. Call it for the last post first. */
static void seat_reclaim(struct kamailio *kamailio, struct post *post)
{
    struct seat *seat = post->seat;
    if (post->sequence == 0) { /* not an event */
        free(post);
        return;
    }
    if (post->type == WIRE_MESSAGE) {
        seat->in_flight--;
        ledger_note_unwritten(seat->client->slot, post->written);
        DL_PREPEND(seat->returned, post);
        return;
    }
    seat_enter(kamailio, seat, post->type == WIRE_NEW ? SEAT_WAITING : SEAT_ADMITTED);
    seat_keep_post(seat, post);
}

void seat_leave_worker(struct kamailio *kamailio, struct worker *worker, uint64_t begun, bool last)
{
    struct post *post = NULL;
    while ((post = worker_pop_done(worker, begun)) != NULL)
        seat_break_off(kamailio, post);
    while ((post = worker_pop_last(worker)) != NULL)
        seat_reclaim(kamailio, post);
    struct seat *seat = NULL;
    struct seat *next = NULL;
    DL_FOREACH_SAFE(worker->seats.first, seat, next)
    {
        seat_unlink(kamailio, seat);
        seat_add_unplaced(kamailio, seat);
        if (last)
            seat_enter(kamailio, seat, SEAT_WAITING);
        seat_advance(kamailio, seat);
    }
}

/* Drop messages that came back from a dead worker: no other worker gets them. */
static void seat_drop_returned(struct seat *seat)
{
    struct post *post = NULL;
    while ((post = seat->returned) != NULL) {
        DL_DELETE(seat->returned, post);
        books_count_lost_message(seat->client, LOSS_CLOSED);
        free(post);
    }
}

unsigned seat_close_all(struct kamailio *kamailio)
{
    unsigned closed = 0;
    struct seat *seat = NULL;
    struct seat *next = NULL;
    DL_FOREACH_SAFE(kamailio->seats.unplaced, seat, next)
    {
        struct client *client = seat->client;
        if (client->slot->standing == STANDING_NEW)
            continue;
        closed += client->state != CLIENT_FLUSHING && client->state != CLIENT_GONE;
        seat_drop_returned(seat);
        if (client->state == CLIENT_GONE)
            seat_advance(kamailio, seat);
        else if (client->state != CLIENT_FLUSHING)
            flush_leave(kamailio->bus, client);
    }
    return closed;
}

void seat_free_all(struct kamailio *kamailio)
{
    const struct seats *seats = &kamailio->seats;
    while (seats->unplaced != NULL)
        seat_free(kamailio, seats->unplaced); /* NOLINT(clang-analyzer-unix.Malloc): it is removed from that list */
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void seat_save(const struct seat *seat, struct state_out *out)
{
    const struct post *post = NULL;
    state_put(out, "state", (uint64_t)seat->state);
    state_put(out, "place", seat->worker != NULL ? seat->worker->index + 1U : 0);
    state_put(out, "only-place", seat->only_place);
    DL_FOREACH(seat->returned, post)
    {
        state_put_record(out, "returned");
        state_put(out, "read-ns", post->read_ns);
        state_put_bytes(out, "message", post->message, post->length);
        state_put_end(out);
    }
}

/* The seat is among the unplaced ones: give it back its worker. */
static bool seat_load_place(struct kamailio *kamailio, struct seat *seat, uint64_t place)
{
    struct worker *worker = place > 0 && place <= EVAPID_WORKERS_MAX ? kamailio->attachment.workers[place - 1] : NULL;
    if (place == 0)
        return true;
    if (worker == NULL)
        return false;
    seat_join(kamailio, seat, worker);
    return true;
}

bool seat_load(struct kamailio *kamailio, struct seat *seat, struct state_in *in)
{
    const uint64_t state = state_get(in, "state", SEAT_LEAVING + 1);
    const uint64_t place = state_get(in, "place", 0);
    const uint64_t only_place = state_get(in, "only-place", 0);
    if (state > SEAT_LEAVING || only_place > EVAPID_WORKERS_MAX || in->at.failed ||
        !seat_load_place(kamailio, seat, place))
        return state_fail(in);
    seat->only_place = (uint16_t)only_place;
    while (state_get_next(in, "returned")) {
        const uint64_t read_ns = state_get(in, "read-ns", 0);
        const struct wire_text message = state_get_bytes(in, "message");
        state_get_end(in);
        struct post *post = post_new(WIRE_MESSAGE, seat, message.bytes, message.length);
        if (post == NULL)
            return state_fail(in);
        post->read_ns = read_ns;
        DL_APPEND(seat->returned, post);
    }
    seat_enter(kamailio, seat, (enum seat_state)state);
    return !in->at.failed;
}

void seat_save_worker(const struct worker *worker, struct state_out *out)
{
    const struct post *post = NULL;
    const struct seat *seat = NULL;
    DL_FOREACH(worker->posts, post)
    {
        state_put_record(out, "post");
        state_put(out, "type", (uint64_t)post->type);
        state_put(out, "client", post->seat != NULL ? post->seat->client->index : 0);
        state_put_bytes(out, "message", post->message, post->length);
        worker_save_post(worker, post, out);
        state_put_end(out);
    }
    DL_FOREACH2(worker->seats.waiting, seat, waiting_next)
    {
        state_put_record(out, "waiting");
        state_put(out, "client", seat->client->index);
        state_put_end(out);
    }
}

static struct seat *seat_of(const struct kamailio *kamailio, uint64_t index)
{
    struct client *client = roster_find(kamailio->bus, (uint32_t)index);
    return client != NULL ? client->seat : NULL;
}

/* A post on the link. A new seat has just been given an announcement and a farewell; those two are taken from it. */
static struct post *seat_load_post(struct seat *seat, enum wire_type type, struct wire_text message)
{
    struct post *post = NULL;
    if (type == WIRE_NEW && seat != NULL) {
        post = seat->announcement;
        seat->announcement = NULL;
    } else if (type == WIRE_CLOSED && seat != NULL) {
        post = seat->farewell;
        seat->farewell = NULL;
    } else if ((type == WIRE_MESSAGE) == (seat != NULL)) {
        post = post_new(type, seat, message.bytes, message.length);
        if (post != NULL && seat != NULL)
            seat->in_flight++;
    }
    return post;
}

bool seat_load_worker(struct kamailio *kamailio, struct worker *worker, struct state_in *in)
{
    while (state_get_next(in, "post")) {
        const uint64_t type = state_get(in, "type", WIRE_MESSAGE + 1);
        const uint64_t index = state_get(in, "client", 0);
        const struct wire_text message = state_get_bytes(in, "message");
        struct seat *seat = index > 0 ? seat_of(kamailio, index) : NULL;
        struct post *post = (index > 0) == (seat != NULL) && type <= WIRE_MESSAGE && !in->at.failed
                                ? seat_load_post(seat, (enum wire_type)type, message)
                                : NULL;
        if (post == NULL)
            return state_fail(in);
        worker_load_post(worker, post, in);
        state_get_end(in);
    }
    while (state_get_next(in, "waiting")) {
        struct seat *seat = seat_of(kamailio, state_get(in, "client", 0));
        state_get_end(in);
        if (seat == NULL || seat->worker != worker || seat->queued)
            return state_fail(in);
        seat_enqueue(seat);
    }
    return !in->at.failed;
}
