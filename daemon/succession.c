/* Saving the attachment, and going on with it. */
#include "succession.h"

#include <string.h>

#include "hold.h"
#include "log.h"
#include "store.h"

#define SUBJECT "kamailio"

/* ---- in order --------------------------------------------------------------------------------------------------- */

void succession_save(const struct kamailio *kamailio, struct state_out *out)
{
    state_put(out, kamailio->session, 4);
    state_put(out, kamailio->instance, 8);
    state_put(out, kamailio->pid, 4);
    state_put(out, kamailio->since_ms, 8);
    state_put(out, kamailio->workers_declared, 2);
    state_put_bytes(out, kamailio->module_version, strlen(kamailio->module_version));
    state_put_bytes(out, kamailio->kamailio_version, strlen(kamailio->kamailio_version));
    state_put(out, kamailio->corrupt, 1);
    state_put(out, kamailio->corrupt_instance, 8);
    state_put(out, kamailio->expected, 4);
    state_put(out, kamailio->stale, 8);
    declaration_save(&kamailio->declaration, out);
    state_put(out, kamailio->workers_attached, 2);
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL) {
            state_put(out, i, 2);
            worker_save(kamailio->workers[i], out);
        }
}

static void load_text(struct state_in *in, char *out, size_t room)
{
    wire_text_copy(out, room, state_take_bytes(in));
}

static bool succession_load_worker(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings)
{
    const uint64_t index = state_take(in, 2);
    const int fd = holdings_take(holdings, "worker-%u", (unsigned)index);
    if (fd < 0 || index >= kamailio->workers_declared || kamailio->workers[index] != NULL)
        return state_fail(in);
    struct worker *worker = worker_open(kamailio->loop, fd, &kamailio->worker_host);
    if (worker == NULL)
        return state_fail(in);
    worker->index = (uint16_t)index;
    kamailio->workers[index] = worker;
    kamailio->workers_attached++;
    return worker_load(worker, in);
}

bool succession_load(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings)
{
    kamailio->session = (uint32_t)state_take(in, 4);
    kamailio->instance = state_take(in, 8);
    kamailio->pid = (uint32_t)state_take(in, 4);
    kamailio->since_ms = state_take(in, 8);
    kamailio->workers_declared = (uint16_t)state_take(in, 2);
    load_text(in, kamailio->module_version, sizeof(kamailio->module_version));
    load_text(in, kamailio->kamailio_version, sizeof(kamailio->kamailio_version));
    kamailio->corrupt = state_take(in, 1) == 1;
    kamailio->corrupt_instance = state_take(in, 8);
    kamailio->expected = (uint32_t)state_take(in, 4);
    kamailio->stale = state_take(in, 8);
    if (!declaration_load(&kamailio->declaration, in))
        return state_fail(in);
    if (in->at.failed || kamailio->session == 0 || kamailio->workers_declared > EVAPID_WORKERS_MAX)
        return state_fail(in);
    store_reserve(kamailio->workers_declared);
    for (uint64_t workers = state_take(in, 2); workers > 0 && !in->at.failed; workers--)
        succession_load_worker(kamailio, in, holdings);
    return !in->at.failed;
}

/* One that is corrupt is read no more, and nobody could open it again: that it was is all that a successor needs. */
static bool has_readable_queue(const struct kamailio *kamailio)
{
    return kamailio->queue != NULL && kamailio->queue->state != QUEUE_CORRUPT;
}

void succession_save_links(const struct kamailio *kamailio, struct state_out *out)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL)
            seat_save_worker(kamailio->workers[i], out);
    state_put(out, has_readable_queue(kamailio), 1);
    if (has_readable_queue(kamailio))
        queue_save(kamailio->queue, out);
    state_put(out, (uint64_t)kamailio->attachment, 1);
    state_put(out, uv_timer_get_due_in(&kamailio->hold), 8);
}

/* The presence in the ring is as the evapid before us has left it, and true, if all clients have come over. */
static bool succession_load_queue(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings)
{
    const int memfd = holdings_take(holdings, "ring");
    const int eventfd = holdings_take(holdings, "ring-wake");
    const char *why = memfd >= 0 && eventfd >= 0 ? kamailio_open_queue(kamailio, memfd, eventfd) : "it is not there";
    if (why != NULL) {
        log_line(LEVEL_ERROR, SUBJECT, "the queue of pid %u can't be taken over: %s", kamailio->pid, why);
        return state_fail(in);
    }
    if (kamailio->bus->lost > 0) {
        kamailio_publish(kamailio);
        hold_publish_clients(kamailio);
    }
    return queue_load(kamailio->queue, in);
}

bool succession_load_links(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL && !seat_load_worker(kamailio, kamailio->workers[i], in))
            return false;
    const bool has_queue = state_take(in, 1) == 1;
    if (has_queue && !succession_load_queue(kamailio, in, holdings))
        return false;
    const uint64_t attachment = state_take(in, 1);
    const uint64_t hold_ms = state_take(in, 8);
    if (attachment > ATTACHED || (attachment != DETACHED) != (kamailio->workers_attached > 0) ||
        (attachment != DETACHED && !has_queue) || in->at.failed)
        return state_fail(in);
    kamailio->attachment = (enum attachment)attachment;
    kamailio->resume_wanted = true;
    if (attachment == GATHERING)
        kamailio_gather(kamailio);
    if (hold_is_on(kamailio))
        uv_timer_start(&kamailio->hold, hold_on_over, hold_ms, 0);
    return true;
}

bool succession_hold(const struct kamailio *kamailio, struct holdings *holdings)
{
    bool held = true;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        held =
            held && (kamailio->workers[i] == NULL || holdings_add(holdings, kamailio->workers[i]->fd, "worker-%u", i));
    if (!has_readable_queue(kamailio))
        return held;
    return held && holdings_add(holdings, kamailio->queue->memfd, "ring") &&
           holdings_add(holdings, kamailio->queue->eventfd, "ring-wake");
}

/* ---- after a kill ----------------------------------------------------------------------------------------------- */

const char *succession_reopen_queue(struct kamailio *kamailio, uint64_t instance, int memfd, int eventfd,
                                    uint64_t *tail)
{
    const char *why = kamailio_open_queue(kamailio, memfd, eventfd);
    if (why != NULL)
        return why;
    kamailio->instance = instance;
    *tail = kamailio->queue->ring.tail;
    return NULL;
}

void succession_go_on_alone(struct kamailio *kamailio, uint32_t awaited)
{
    if (kamailio->queue == NULL)
        return;
    kamailio_publish(kamailio);
    atomic_store(&queue_presence(kamailio->queue)->attached, 0);
    if (awaited > 0) {
        hold_begin(kamailio, awaited + kamailio->bus->listening_count);
        return;
    }
    queue_resume(kamailio->queue);
    hold_publish_clients(kamailio);
}
