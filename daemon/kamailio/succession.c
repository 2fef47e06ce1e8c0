/* Saving the attachment, and going on with it. */
#include "kamailio/succession.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/store.h"
#include "kamailio/hold.h"

#define SUBJECT "kamailio"

/* ---- in order --------------------------------------------------------------------------------------------------- */

void succession_save(const struct kamailio *kamailio, struct state_out *out)
{
    state_put(out, "session", kamailio->session);
    state_put(out, "instance", kamailio->instance);
    state_put(out, "pid", kamailio->pid);
    state_put(out, "since-ms", kamailio->since_ms);
    state_put(out, "workers-declared", kamailio->workers_declared);
    state_put_text(out, "module-version", kamailio->module_version);
    state_put_text(out, "kamailio-version", kamailio->kamailio_version);
    state_put(out, "corrupt", kamailio->corrupt);
    state_put(out, "corrupt-instance", kamailio->corrupt_instance);
    state_put(out, "expected", kamailio->expected);
    state_put(out, "stale", kamailio->stale);
    state_put(out, "abandoned", kamailio->abandoned);
    state_put_record(out, "declaration");
    declaration_save(&kamailio->declaration, out);
    state_put_end(out);
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL) {
            state_put_record(out, "worker");
            state_put(out, "index", i);
            worker_save(kamailio->workers[i], out);
            state_put_end(out);
        }
}

static void load_text(struct state_in *in, const char *name, char *out, size_t room)
{
    wire_text_copy(out, room, state_take_bytes(in, name));
}

/* In place of a link that was not kept: one of which the other end has gone. NULL: there can be none. */
static struct worker *open_lost_link(struct kamailio *kamailio)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        return NULL;
    close(ends[1]);
    struct worker *worker = worker_open(kamailio->loop, ends[0], &kamailio->worker_host);
    if (worker != NULL)
        worker->lost = true;
    return worker;
}

static bool succession_load_worker(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings)
{
    const uint64_t index = state_take(in, "index", EVAPID_WORKERS_MAX);
    if (index >= kamailio->workers_declared || kamailio->workers[index] != NULL)
        return state_fail(in);
    const int fd = holdings_take(holdings, "worker-%u", (unsigned)index);
    struct worker *worker = fd >= 0 ? worker_open(kamailio->loop, fd, &kamailio->worker_host) : NULL;
    if (worker == NULL)
        worker = open_lost_link(kamailio);
    if (worker == NULL)
        return state_fail(in);
    worker->index = (uint16_t)index;
    kamailio->workers[index] = worker;
    kamailio->workers_attached++;
    return worker_load(worker, in);
}

bool succession_load(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings)
{
    kamailio->session = (uint32_t)state_take(in, "session", 0);
    kamailio->instance = state_take(in, "instance", 0);
    kamailio->pid = (uint32_t)state_take(in, "pid", 0);
    kamailio->since_ms = state_take(in, "since-ms", 0);
    kamailio->workers_declared = (uint16_t)state_take(in, "workers-declared", 0);
    load_text(in, "module-version", kamailio->module_version, sizeof(kamailio->module_version));
    load_text(in, "kamailio-version", kamailio->kamailio_version, sizeof(kamailio->kamailio_version));
    kamailio->corrupt = state_take(in, "corrupt", 0) == 1;
    kamailio->corrupt_instance = state_take(in, "corrupt-instance", 0);
    kamailio->expected = (uint32_t)state_take(in, "expected", 0);
    kamailio->stale = state_take(in, "stale", 0);
    kamailio->abandoned = state_take(in, "abandoned", 0) == 1;
    state_take_record(in, "declaration");
    if (!declaration_load(&kamailio->declaration, in))
        return state_fail(in);
    state_take_end(in);
    if (in->at.failed || kamailio->session == 0 || kamailio->workers_declared > EVAPID_WORKERS_MAX)
        return state_fail(in);
    store_reserve(kamailio->workers_declared);
    while (state_take_next(in, "worker")) {
        succession_load_worker(kamailio, in, holdings);
        state_take_end(in);
    }
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
        if (kamailio->workers[i] != NULL) {
            state_put_record(out, "worker");
            seat_save_worker(kamailio->workers[i], out);
            state_put_end(out);
        }
    if (has_readable_queue(kamailio)) {
        state_put_record(out, "queue");
        queue_save(kamailio->queue, out);
        state_put_end(out);
    }
    state_put(out, "attachment", (uint64_t)kamailio->attachment);
    state_put(out, "hold-ms", uv_timer_get_due_in(&kamailio->hold));
}

static const char *succession_open_queue(struct kamailio *kamailio, struct holdings *holdings)
{
    const int memfd = holdings_take(holdings, "ring");
    const int wake_fd = holdings_take(holdings, "ring-wake");
    if (memfd >= 0 && wake_fd >= 0)
        return kamailio_open_queue(kamailio, memfd, wake_fd);
    if (memfd >= 0)
        close(memfd);
    if (wake_fd >= 0)
        close(wake_fd);
    return "it was not kept";
}

/* The presence in the ring is as the evapid before us has left it, and true, if all clients have come over. Without the ring
 * there is no attachment any more, which ends when all is ours (succession_settle). */
static void succession_load_queue(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings)
{
    const char *unopened = succession_open_queue(kamailio, holdings);
    const char *unloaded = queue_load(kamailio->queue, in);
    kamailio->queue_lost = unopened != NULL ? unopened : unloaded;
    if (kamailio->queue_lost != NULL) {
        if (kamailio->queue != NULL)
            queue_close(kamailio->queue);
        kamailio->queue = NULL;
    } else if (kamailio->bus->lost > 0) {
        kamailio_publish(kamailio);
        hold_publish_clients(kamailio);
    }
}

/* What is on its way to a worker; the records stand in the order of the workers. */
static bool load_link(struct kamailio *kamailio, struct worker *worker, struct state_in *in)
{
    state_take_record(in, "worker");
    if (!seat_load_worker(kamailio, worker, in))
        return false;
    state_take_end(in);
    return true;
}

bool succession_load_links(struct kamailio *kamailio, struct state_in *in, struct holdings *holdings)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL && !load_link(kamailio, kamailio->workers[i], in))
            return false;
    const bool has_queue = state_take_next(in, "queue");
    if (has_queue) {
        succession_load_queue(kamailio, in, holdings);
        state_take_end(in);
    }
    const uint64_t attachment = state_take(in, "attachment", DETACHED);
    const uint64_t hold_ms = state_take(in, "hold-ms", 0);
    if (attachment > ATTACHED || (attachment != DETACHED) != (kamailio->workers_attached > 0) ||
        (attachment != DETACHED && !has_queue) || in->at.failed)
        return state_fail(in);
    kamailio->attachment = (enum attachment)attachment;
    kamailio->resume_wanted = true;
    if (attachment == GATHERING)
        kamailio_gather(kamailio);
    if (attachment == DETACHED)
        kamailio_await_return(kamailio);
    if (hold_is_on(kamailio))
        uv_timer_start(&kamailio->hold, hold_on_over, hold_ms, 0);
    return true;
}

/* How many of the links were not kept? */
static unsigned count_lost_links(const struct kamailio *kamailio)
{
    unsigned lost = 0;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        lost += kamailio->workers[i] != NULL && kamailio->workers[i]->lost;
    return lost;
}

void succession_settle(struct kamailio *kamailio)
{
    char why[128];
    const unsigned lost = count_lost_links(kamailio);
    if (kamailio->queue_lost != NULL)
        snprintf(why, sizeof(why), "its queue can't be read, because %s", kamailio->queue_lost);
    else if (lost > 0)
        snprintf(why, sizeof(why), "%u of the %u links to its workers were not kept", lost, kamailio->workers_attached);
    else
        return;
    log_line(LEVEL_WARNING, SUBJECT,
             "the attachment of pid %u is not taken over: %s; clients stay, and wait until it attaches again",
             kamailio->pid, why);
    if (kamailio->queue == NULL) {
        store_forget("ring"); /* that of the next attachment gets these names */
        store_forget("ring-wake");
        kamailio->instance = 0;
    }
    kamailio->queue_lost = NULL;
    kamailio->abandoned = kamailio->workers_attached > 0;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->workers[i] != NULL)
            kamailio_depart(kamailio, kamailio->workers[i], "it was not taken over");
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
           holdings_add(holdings, kamailio->queue->wake_fd, "ring-wake");
}

/* ---- after a kill ----------------------------------------------------------------------------------------------- */

const char *succession_reopen_queue(struct kamailio *kamailio, uint64_t instance, struct holdings *holdings,
                                    uint64_t *tail)
{
    const char *why = succession_open_queue(kamailio, holdings);
    if (why != NULL)
        return why;
    kamailio->instance = instance;
    *tail = kamailio->queue->ring.tail;
    return NULL;
}

void succession_go_on_alone(struct kamailio *kamailio, uint32_t awaited)
{
    kamailio_await_return(kamailio);
    if (kamailio->queue == NULL)
        return;
    kamailio_publish(kamailio);
    atomic_store(&queue_presence(kamailio->queue)->attached, 0);
    if (awaited > 0) {
        hold_begin(kamailio, awaited + kamailio->bus->roster.receiver_count);
        return;
    }
    queue_resume(kamailio->queue);
    hold_publish_clients(kamailio);
}
