/* Attaching and detaching Kamailio, and handing on what its routes say. */
#include "kamailio/kamailio.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/passed.h"
#include "base/store.h"
#include "bus/flush.h"
#include "bus/roster.h"
#include "kamailio/hold.h"
#include "kamailio/stranger.h"

#define SUBJECT "kamailio"

static struct log_limit refusals = { .kind = "kamailio: refused attachments" };
static struct log_limit losses = { .kind = "kamailio: lost workers" };
static struct log_limit attachments = { .kind = "kamailio: attached" };
static struct log_limit detachments = { .kind = "kamailio: detached" };
static struct log_limit corruptions = { .kind = "kamailio: corrupt queues" };

struct presence *kamailio_presence(const struct kamailio *kamailio)
{
    return kamailio->stopping || kamailio->queue == NULL ? NULL : queue_presence(kamailio->queue);
}

/* ---- what routes say -------------------------------------------------------------------------------------------- */

static void kamailio_on_event(void *owner, const struct ring_record *record, const char *tag,
                              const struct payload *payload)
{
    struct kamailio *kamailio = owner;
    const bool has_guest = record->target - 1 < INT32_MAX && record->session == kamailio->session;
    const struct event event = { .kind = record->type == RING_RELAY       ? EVENT_RELAY
                                         : record->type == RING_MULTICAST ? EVENT_MULTICAST
                                                                          : EVENT_UNICAST,
                                 .payload = payload,
                                 .tag = tag,
                                 .tag_length = record->tag_length,
                                 .guest = has_guest ? roster_find(kamailio->bus, (uint32_t)record->target) : NULL };
    const uint32_t receivers = bus_issue(kamailio->bus, &event);
    if (event.kind == EVENT_MULTICAST)
        queue_note_work(kamailio->queue, receivers);
}

static void kamailio_on_done(struct kamailio *kamailio, const struct ring_record *record)
{
    struct worker *worker = record->worker < EVAPID_WORKERS_MAX ? kamailio->workers[record->worker] : NULL;
    struct post *post = NULL;
    while (worker != NULL && (post = worker_take_done(worker, record->target)) != NULL)
        seat_answered(kamailio, post);
    kamailio->resume_wanted = true;
}

/* Ahead of its turn, a tag or a close only concerns a client that is being admitted: its admission is what the events in
 * the ring wait for. For the others it comes again, behind the events that were issued before it. */
static void kamailio_on_control(void *owner, const struct ring_record *record, const char *tag, bool ahead)
{
    struct kamailio *kamailio = owner;
    if (record->session != kamailio->session) {
        kamailio->stale += !ahead;
        return;
    }
    if (record->type == RING_DONE) {
        kamailio_on_done(kamailio, record);
        return;
    }
    struct client *client = record->target <= INT32_MAX ? roster_find(kamailio->bus, (uint32_t)record->target) : NULL;
    if (client == NULL || (ahead && client->state != CLIENT_ADMITTING))
        return; /* it has gone meanwhile, or its turn comes */
    if (record->type == RING_TAG)
        bus_tag(kamailio->bus, client, tag, record->tag_length);
    else
        flush_finish(kamailio->bus, client);
}

static void kamailio_on_crowded(void *owner)
{
    hold_end(owner, "the queue is nearly full");
}

static bool kamailio_on_busy(void *owner)
{
    const struct kamailio *kamailio = owner;
    return kamailio->bus->flush.behind;
}

static void kamailio_on_commit(void *owner, uint64_t tail)
{
    const struct kamailio *kamailio = owner;
    bus_commit(kamailio->bus, kamailio->instance, tail);
}

/* ---- detaching -------------------------------------------------------------------------------------------------- */

/* A Kamailio has gone: the clients that it had let in go with it, if it has asked for that (keep_clients 0). The ledger keeps
 * what it has asked for, because evapid may be killed before the clients have read what is still theirs. */
static void kamailio_end_clients(struct kamailio *kamailio)
{
    kamailio->back_by_ms = 0;
    kamailio->gone.pending = false;
    if (kamailio->stopping || kamailio->bus->ledger->header->clients_end == 0)
        return;
    const unsigned closed = seat_close_all(kamailio);
    if (closed > 0)
        log_line(LEVEL_NOTICE, SUBJECT, "closing %u clients: their Kamailio has gone (keep_clients 0)", closed);
}

void kamailio_await_return(struct kamailio *kamailio)
{
    kamailio->back_by_ms = uv_now(kamailio->loop) + BACK_MS;
}

/* Kamailio lives and will attach again. Its workers may still answer for the old links; a new session number makes evapid ignore
 * that. */
static void kamailio_abandoned(struct kamailio *kamailio)
{
    kamailio->abandoned = false;
    if (++kamailio->session == 0)
        kamailio->session = 1;
    kamailio_await_return(kamailio);
}

static void kamailio_detached(struct kamailio *kamailio, const char *why)
{
    kamailio->attachment = DETACHED;
    bus_set_admits(kamailio->bus, false);
    uv_timer_stop(&kamailio->gather);
    log_limited(&detachments, LEVEL_NOTICE, SUBJECT, "detached: pid %u: %s", kamailio->pid, why);
    if (kamailio->queue != NULL) {
        atomic_store(&queue_presence(kamailio->queue)->attached, 0);
        hold_end(kamailio, "Kamailio has gone");
    }
    if (kamailio->abandoned)
        kamailio_abandoned(kamailio);
    else
        kamailio->gone =
            (struct kamailio_gone){ .pending = true,
                                    .mark = { .ring = kamailio->rings, .end = queue_end(kamailio->queue) } };
}

/* The last sequence number of which the worker has begun the route, or will, because it lives and has been sent it. */
static uint64_t kamailio_begun(const struct kamailio *kamailio, const struct worker *worker)
{
    if (kamailio->abandoned)
        return UINT64_MAX;
    const struct ring_worker *slot = &kamailio->queue->ring.header->workers[worker->index];
    return atomic_load_explicit(&slot->started, memory_order_acquire);
}

static void kamailio_lose_worker(struct kamailio *kamailio, struct worker *worker, const char *why)
{
    const uint64_t begun = kamailio_begun(kamailio, worker);
    kamailio->workers[worker->index] = NULL;
    const bool last = --kamailio->workers_attached == 0;
    if (!last)
        log_limited(&losses, LEVEL_WARNING, SUBJECT, "worker %u (pid %u): %s", worker->index, worker->pid, why);
    seat_leave_worker(kamailio, worker, begun, last);
    if (last)
        kamailio_detached(kamailio, why);
    else if (kamailio->attachment == ATTACHED)
        seat_place_all(kamailio);
}

/* An attached worker has gone, and what had been written by then has been read. */
static void kamailio_let_go(struct kamailio *kamailio, struct worker *worker, const char *why)
{
    if (worker->state == WORKER_DEPARTED)
        kamailio->departed--;
    kamailio_lose_worker(kamailio, worker, why);
    worker_close(worker);
}

void kamailio_depart(struct kamailio *kamailio, struct worker *worker, const char *why)
{
    const struct kamailio_mark mark = kamailio_catch_up_to(kamailio);
    if (worker->state == WORKER_CLOSED)
        return;
    if (kamailio_has_read(kamailio, mark)) {
        kamailio_let_go(kamailio, worker, why);
        return;
    }
    worker_depart(worker, why);
    worker->mark = mark;
    kamailio->departed++;
}

static void kamailio_on_lost(struct worker *worker, const char *why)
{
    struct kamailio *kamailio = worker->host->owner;
    if (worker->state == WORKER_ATTACHED) {
        kamailio_depart(kamailio, worker, why);
        return;
    }
    DL_DELETE(kamailio->strangers, worker);
    kamailio->stranger_count--;
    worker_close(worker);
}

/* The end of a turn: those of the workers that have gone of which all has been read. */
static void kamailio_settle_departed(struct kamailio *kamailio)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX && kamailio->departed > 0; i++) {
        struct worker *worker = kamailio->workers[i];
        if (worker != NULL && worker->state == WORKER_DEPARTED && kamailio_has_read(kamailio, worker->mark))
            kamailio_let_go(kamailio, worker, worker->why);
    }
}

/* Should we be killed: a message that its worker has is not lost. */
static void kamailio_on_written(struct worker *worker, struct post *post)
{
    (void)worker;
    ledger_note_written(post->seat->client->slot, post->type == WIRE_MESSAGE);
}

/* A ring that holds nonsense is not read any further, and its Kamailio is not let in again. */
static void kamailio_on_corrupt(void *owner, uint64_t at, const char *why)
{
    struct kamailio *kamailio = owner;
    log_limited(&corruptions, LEVEL_ERROR, SUBJECT,
                "the queue of pid %u is corrupt at byte %llu: %s; dropping the attachment, restart it", kamailio->pid,
                (unsigned long long)at, why);
    kamailio->corrupt_instance = kamailio->instance;
    kamailio->corrupt = true;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL)
            kamailio_let_go(kamailio, kamailio->workers[i], "its queue is corrupt");
}

/* ---- attaching -------------------------------------------------------------------------------------------------- */

static void kamailio_publish_tags(struct kamailio *kamailio, struct presence *presence)
{
    size_t tags = 0;
    presence_begin(presence);
    for (const struct tag *tag = kamailio->bus->tags.tags; tag != NULL; tag = tag->hh.next)
        if (tag->receivers > 0) {
            presence_add(presence, tag->hash);
            tags++;
        }
    presence_end(presence, tags);
    kamailio->tags_removed = 0;
}

void kamailio_publish(struct kamailio *kamailio)
{
    struct presence *presence = kamailio_presence(kamailio);
    if (presence == NULL)
        return;
    kamailio_publish_tags(kamailio, presence);
    atomic_store(&presence->session, kamailio->session);
}

const char *kamailio_open_queue(struct kamailio *kamailio, int memfd, int wake_fd)
{
    const struct queue_host host = { .owner = kamailio,
                                     .busy = kamailio_on_busy,
                                     .event = kamailio_on_event,
                                     .control = kamailio_on_control,
                                     .crowded = kamailio_on_crowded,
                                     .corrupt = kamailio_on_corrupt,
                                     .commit = kamailio_on_commit };
    const char *why = NULL;
    kamailio->queue = queue_open(kamailio->loop, memfd, wake_fd, &host, &why);
    return why;
}

/* The service manager keeps the ring, so that it is read to its end should evapid and Kamailio both be killed. */
static void kamailio_keep_queue(const struct kamailio *kamailio, uint64_t instance)
{
    kamailio->bus->ledger->header->instance = instance;
    meter_begin(&kamailio->bus->ledger->header->meter, instance);
    store_keep(kamailio->queue->memfd, "ring");
    store_keep(kamailio->queue->wake_fd, "ring-wake");
}

/* Take over the ring of a Kamailio that is new to us. NULL, or why it can't be read. */
static const char *kamailio_take_queue(struct kamailio *kamailio, uint64_t instance, int memfd, int wake_fd)
{
    if (kamailio->queue !=
        NULL) { /* all has been read that processes of the Kamailio before had written by the HELLO */
        meter_read(&kamailio->bus->ledger->header->meter, kamailio->queue->ring.header);
        queue_close(kamailio->queue);
        store_forget("ring");
        store_forget("ring-wake");
    }
    kamailio->instance = 0;
    kamailio->rings++;
    const char *why = kamailio_open_queue(kamailio, memfd, wake_fd);
    if (why == NULL)
        kamailio_keep_queue(kamailio, instance);
    return why;
}

/* The first worker of a Kamailio. NULL, or why it can't attach. */
static const char *kamailio_begin(struct kamailio *kamailio, const struct wire_hello *hello, int memfd, int wake_fd)
{
    struct ledger_header *ledger = kamailio->bus->ledger->header;
    const bool another = ledger->instance != hello->instance;
    uint32_t clients_before = 0;
    if (kamailio->queue != NULL && kamailio->instance == hello->instance) {
        passed_close(memfd);
        passed_close(wake_fd);
    } else {
        const char *why = kamailio_take_queue(kamailio, hello->instance, memfd, wake_fd);
        if (why != NULL)
            return why;
        clients_before = atomic_load(&queue_presence(kamailio->queue)->expected);
    }
    if (another) {
        kamailio_end_clients(kamailio); /* evapid was not there when the one before went */
        seat_forget_workers(kamailio);
    }
    ledger->clients_end = !hello->keep_clients;
    kamailio->back_by_ms = 0;
    kamailio->gone.pending = false;
    kamailio->since_ms = clock_wall_ms();
    kamailio->instance = hello->instance;
    kamailio->pid = hello->pid;
    kamailio->workers_declared = hello->workers;
    store_reserve(hello->workers);
    wire_text_copy(kamailio->module_version, sizeof(kamailio->module_version), hello->module_version);
    wire_text_copy(kamailio->kamailio_version, sizeof(kamailio->kamailio_version), hello->kamailio_version);
    kamailio->attachment = GATHERING;
    bus_set_admits(kamailio->bus, true);
    kamailio_publish(kamailio);
    hold_begin(kamailio, clients_before);
    log_limited(&attachments, LEVEL_NOTICE, SUBJECT,
                "attached: pid %u, Kamailio %s, module %s, %u workers, queue of %zu bytes with %zu waiting",
                kamailio->pid, kamailio->kamailio_version, kamailio->module_version, kamailio->workers_declared,
                kamailio->queue->ring.capacity, queue_used(kamailio->queue));
    return NULL;
}

static void kamailio_finish_gathering(struct kamailio *kamailio)
{
    if (kamailio->attachment != GATHERING)
        return;
    uv_timer_stop(&kamailio->gather);
    kamailio->attachment = ATTACHED;
    seat_place_all(kamailio);
}

static void kamailio_on_gather_over(uv_timer_t *timer)
{
    kamailio_finish_gathering(timer->data);
}

void kamailio_gather(struct kamailio *kamailio)
{
    uv_timer_start(&kamailio->gather, kamailio_on_gather_over, GATHER_MS, 0);
}

/* Why this HELLO can't be accepted, NULL when it can. reason holds a text that had to be made. */
static const char *kamailio_objection(const struct kamailio *kamailio, const struct wire_hello *hello, char reason[128])
{
    if (kamailio->stopping)
        return "evapid is stopping";
    if (kamailio->corrupt && hello->instance == kamailio->corrupt_instance)
        return "your queue is corrupt: restart Kamailio";
    if (kamailio->attachment != DETACHED && kamailio->instance != hello->instance) {
        snprintf(reason, 128, "the Kamailio of pid %u is attached, and evapid serves one at a time", kamailio->pid);
        return reason;
    }
    if (kamailio->attachment != DETACHED && kamailio->workers_declared != hello->workers) {
        snprintf(reason, 128, "you declare %u workers, those before you %u", hello->workers,
                 kamailio->workers_declared);
        return reason;
    }
    if (kamailio->workers[hello->worker] != NULL) {
        snprintf(reason, 128, "worker %u is attached already, as pid %u", hello->worker,
                 kamailio->workers[hello->worker]->pid);
        return reason;
    }
    return NULL;
}

static bool kamailio_welcome(const struct kamailio *kamailio, struct worker *worker)
{
    unsigned char frame[WIRE_HEADER + 64];
    const struct wire_welcome welcome = { .version = WIRE_VERSION,
                                          .session = kamailio->session,
                                          .pid = (uint32_t)getpid(),
                                          .evapid_version = { EVAPID_VERSION, strlen(EVAPID_VERSION) } };
    return worker_say(worker, frame, wire_write_welcome(frame, sizeof(frame), &welcome));
}

void kamailio_refuse(struct worker *worker, uint32_t pid, const char *why)
{
    log_limited(&refusals, LEVEL_WARNING, SUBJECT, "refused pid %u: %s", pid, why);
    worker_refuse(worker, why);
}

static void kamailio_seat_worker(struct kamailio *kamailio, struct worker *worker, uint16_t index)
{
    struct ring_header *ring = kamailio->queue->ring.header;
    DL_DELETE(kamailio->strangers, worker);
    kamailio->stranger_count--;
    /* Its frames are numbered from 1 again. Only now: the link that was before has been settled with the old value. */
    atomic_store(&ring->workers[index].started, 0);
    atomic_store(&ring->workers[index].awaited, 0);
    worker->state = WORKER_ATTACHED;
    worker->index = index;
    kamailio->workers[index] = worker;
    kamailio->workers_attached++;
    atomic_store(&ring->presence.attached, 1);
    if (kamailio->attachment == ATTACHED)
        seat_place_all(kamailio);
    else if (kamailio->workers_attached == kamailio->workers_declared)
        kamailio_finish_gathering(kamailio);
    else
        kamailio_gather(kamailio);
    worker_watch_process(worker); /* last: it may have ended */
}

/* Must evapid first read what departed workers, or the Kamailio before, have written? Then the HELLO waits (strangers_serve). */
static bool kamailio_must_read_before(struct kamailio *kamailio, struct worker *worker, const struct wire_hello *hello)
{
    const bool another = kamailio->attachment == DETACHED && kamailio->instance != hello->instance;
    if (kamailio->stopping || (!another && kamailio->departed == 0))
        return false;
    if (worker->state != WORKER_WAITING)
        worker->mark = kamailio_catch_up_to(kamailio);
    return kamailio->departed > 0 || !kamailio_has_read(kamailio, worker->mark);
}

static void kamailio_on_hello(struct worker *worker, const struct wire_hello *hello, int memfd, int wake_fd)
{
    struct kamailio *kamailio = worker->host->owner;
    char reason[128];
    if (kamailio_must_read_before(kamailio, worker, hello)) {
        worker_wait(worker, memfd, wake_fd);
        kamailio->waiting++;
        return;
    }
    const char *why = kamailio_objection(kamailio, hello, reason);
    const bool first = why == NULL && kamailio->attachment == DETACHED;
    if (first) {
        why = kamailio_begin(kamailio, hello, memfd, wake_fd);
    } else {
        passed_close(memfd);
        passed_close(wake_fd);
    }
    if (why != NULL) {
        kamailio_refuse(worker, hello->pid, why);
        return;
    }
    if (!kamailio_welcome(kamailio, worker) || (first && !declaration_take(&kamailio->declaration, worker, hello))) {
        if (first) {
            kamailio->attachment = DETACHED; /* whoever comes next begins anew */
            bus_set_admits(kamailio->bus, false);
        }
        log_limited(&refusals, LEVEL_ERROR, SUBJECT, "no memory to attach worker %u of pid %u", hello->worker,
                    hello->pid);
        kamailio_on_lost(worker, NULL);
        return;
    }
    kamailio_seat_worker(kamailio, worker, hello->worker);
}

static void kamailio_on_bad_hello(struct worker *worker, const struct wire_hello *hello)
{
    char reason[128] = "that is no HELLO of evapid's protocol with its two descriptors";
    if (hello->version != 0 && hello->version != WIRE_VERSION)
        snprintf(reason, sizeof(reason),
                 "evapid " EVAPID_VERSION
                 " speaks version %u of the protocol, the module version %u: install a matching one",
                 WIRE_VERSION, hello->version);
    else if (worker->curtailed)
        snprintf(reason, sizeof(reason), "evapid may open no more files for your descriptors: try again");
    kamailio_refuse(worker, worker->pid, reason);
}

/* ---- what the bus tells us -------------------------------------------------------------------------------------- */

static bool upstream_opened(void *owner, struct client *client)
{
    return seat_open(owner, client);
}

static bool upstream_message(void *owner, struct client *client, const char *bytes, size_t length)
{
    return seat_message(owner, client->seat, bytes, length);
}

static void upstream_settle(void *owner, struct client *client)
{
    seat_settle(owner, client->seat);
}

/* Tags that come and go leave places in the set that lengthen every look at it: now and then it is written anew. */
static void kamailio_remove_tag(struct kamailio *kamailio, struct presence *presence, uint64_t hash)
{
    presence_remove(presence, hash);
    if (++kamailio->tags_removed < PRESENCE_REVIEW)
        return;
    kamailio->tags_removed = 0;
    if (presence_left(presence) > PRESENCE_LEFT_MAX || atomic_load(&presence->crowded) != 0)
        kamailio_publish_tags(kamailio, presence);
}

static void upstream_present(void *owner, uint64_t hash, bool present)
{
    struct presence *presence = kamailio_presence(owner);
    if (presence != NULL && present)
        presence_add(presence, hash);
    else if (presence != NULL)
        kamailio_remove_tag(owner, presence, hash);
}

static void upstream_admitted(void *owner)
{
    hold_publish_clients(owner);
}

static void upstream_sends(void *owner)
{
    const struct kamailio *kamailio = owner;
    if (kamailio->queue != NULL)
        queue_commit(kamailio->queue);
    else
        bus_commit(kamailio->bus, 0, 0); /* events that came otherwise */
}

struct bus_upstream kamailio_upstream(struct kamailio *kamailio)
{
    return (struct bus_upstream){ .owner = kamailio,
                                  .opened = upstream_opened,
                                  .message = upstream_message,
                                  .ended = upstream_settle,
                                  .gone = upstream_settle,
                                  .present = upstream_present,
                                  .admitted = upstream_admitted,
                                  .sends = upstream_sends };
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

const char *kamailio_open(struct kamailio *kamailio, uv_loop_t *loop, const struct config *config, struct bus *bus,
                          struct listeners *listeners, struct inherited_door inherited)
{
    kamailio->loop = loop;
    kamailio->config = config;
    kamailio->bus = bus;
    kamailio->declaration = (struct declaration){ .listeners = listeners, .config = config };
    kamailio->worker_host = (struct worker_host){ .owner = kamailio,
                                                  .hello = kamailio_on_hello,
                                                  .query = kamailio->asked != NULL ? strangers_on_query : NULL,
                                                  .bad_hello = kamailio_on_bad_hello,
                                                  .lost = kamailio_on_lost,
                                                  .written = kamailio_on_written };
    while (kamailio->session == 0)
        if (getrandom(&kamailio->session, sizeof(kamailio->session), 0) < 0)
            return "no random number is to be had";
    uv_timer_init(loop, &kamailio->gather);
    uv_timer_init(loop, &kamailio->hold);
    kamailio->gather.data = kamailio;
    kamailio->hold.data = kamailio;
    return door_open(&kamailio->door, loop, config->kamailio_socket, &config->kamailio_access, inherited,
                     strangers_on_connect, kamailio);
}

void kamailio_flush(struct kamailio *kamailio)
{
    bool awaited = false;
    bool posted = false;
    kamailio_settle_departed(kamailio);
    if (kamailio->gone.pending && kamailio_has_read(kamailio, kamailio->gone.mark))
        kamailio_end_clients(kamailio);
    strangers_serve(kamailio);
    seat_go_on_placing(kamailio);
    hold_check(kamailio);
    for (unsigned i = 0; i < kamailio->workers_declared; i++) {
        struct worker *worker = kamailio->workers[i];
        if (worker == NULL || worker->state == WORKER_DEPARTED)
            continue;
        if (kamailio->resume_wanted && !kamailio->stopping)
            seat_serve_waiting(kamailio, worker);
        awaited |= worker->posts != NULL;
        if (worker->unsent == NULL || worker->blocked)
            continue;
        posted = true;
        worker_flush(worker);
    }
    kamailio->resume_wanted = false;
    if (kamailio->queue != NULL)
        queue_await_answers(kamailio->queue, awaited, posted);
}

void kamailio_await_done(struct kamailio *kamailio, const struct worker *worker)
{
    if (kamailio->queue == NULL)
        return; /* it was not taken over: the link is about to end */
    struct ring_worker *slot = &kamailio->queue->ring.header->workers[worker->index];
    atomic_store_explicit(&slot->awaited, worker->last_sequence, memory_order_seq_cst);
    queue_tick(kamailio->queue); /* it may have ended already, and not have woken us */
}

void kamailio_catch_up(struct kamailio *kamailio)
{
    if (kamailio->queue != NULL)
        queue_read_batch(kamailio->queue);
}

struct kamailio_mark kamailio_catch_up_to(struct kamailio *kamailio)
{
    struct kamailio_mark mark = { .ring = kamailio->rings };
    if (kamailio->queue == NULL)
        return mark;
    mark.end = queue_end(kamailio->queue);
    queue_read_batch(kamailio->queue);
    return mark;
}

bool kamailio_has_read(const struct kamailio *kamailio, struct kamailio_mark mark)
{
    return kamailio->queue == NULL || mark.ring != kamailio->rings || queue_has_read(kamailio->queue, mark.end);
}

void kamailio_tick(struct kamailio *kamailio)
{
    door_tick(&kamailio->door);
    strangers_tick(kamailio);
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL && kamailio->workers[i]->state == WORKER_ATTACHED) {
            worker_watch(kamailio->workers[i]);
            worker_watch_process(kamailio->workers[i]); /* last: it may have ended */
        }
    if (kamailio->queue != NULL)
        queue_tick(kamailio->queue);
    if (kamailio->back_by_ms != 0 && uv_now(kamailio->loop) >= kamailio->back_by_ms)
        kamailio_end_clients(kamailio);
    kamailio->resume_wanted = true; /* for a message that there was no memory to post */
}

/* What routes say of what has begun still counts (control records); events are left in the ring for the next evapid. */
void kamailio_stop(struct kamailio *kamailio)
{
    struct presence *presence = kamailio_presence(kamailio);
    kamailio->stopping = true;
    door_close(&kamailio->door);
    if (presence == NULL)
        return;
    atomic_store(&presence->attached, 0);
    queue_hold(kamailio->queue);
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL)
            kamailio_await_done(kamailio, kamailio->workers[i]);
}

bool kamailio_is_idle(const struct kamailio *kamailio)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL && kamailio->workers[i]->posts != NULL)
            return false;
    return true;
}

void kamailio_close(struct kamailio *kamailio)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL)
            kamailio_let_go(kamailio, kamailio->workers[i], "evapid is stopping");
    while (kamailio->strangers != NULL)
        kamailio_on_lost(kamailio->strangers, NULL);
    seat_free_all(kamailio);
    if (kamailio->queue != NULL)
        queue_close(kamailio->queue);
    kamailio->queue = NULL;
    uv_close((uv_handle_t *)&kamailio->gather, NULL);
    uv_close((uv_handle_t *)&kamailio->hold, NULL);
}
