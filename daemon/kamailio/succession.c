/* Saving the attachment, and continuing it. */
#include "kamailio/succession.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/store.h"
#include "kamailio/attachment.h"
#include "kamailio/hold.h"
#include "kamailio/publish.h"
#include "kamailio/seat.h"

#define SUBJECT "kamailio"

/* ---- in order --------------------------------------------------------------------------------------------------- */

void succession_save(const struct kamailio *kamailio, struct state_out *out)
{
    attachment_save(kamailio, out);
    state_put(out, "expected", kamailio->hold.expected);
    state_put(out, "stale", kamailio->stale);
    state_put_record(out, "declaration");
    declaration_save(&kamailio->declaration, out);
    state_put_end(out);
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->attachment.workers[i] != NULL) {
            state_put_record(out, "worker");
            state_put(out, "index", i);
            worker_save(kamailio->attachment.workers[i], out);
            state_put_end(out);
        }
}

static bool succession_load_worker(struct kamailio *kamailio, struct state_in *in, struct descriptors *descriptors)
{
    const uint64_t index = state_get(in, "index", EVAPID_WORKERS_MAX);
    if (index >= kamailio->attachment.workers_declared || kamailio->attachment.workers[index] != NULL)
        return state_fail(in);
    const int fd = descriptors_remove(descriptors, "worker-%u", (unsigned)index);
    return attachment_load_worker(kamailio, (uint16_t)index, fd, in) || state_fail(in);
}

bool succession_load(struct kamailio *kamailio, struct state_in *in, struct descriptors *descriptors)
{
    const bool good = attachment_load(kamailio, in);
    hold_expect(kamailio, (uint32_t)state_get(in, "expected", 0));
    kamailio_go_on(kamailio, state_get(in, "stale", 0));
    state_get_record(in, "declaration");
    if (!declaration_load(&kamailio->declaration, in))
        return state_fail(in);
    state_get_end(in);
    if (in->at.failed || !good)
        return state_fail(in);
    store_reserve(kamailio->attachment.workers_declared);
    while (state_get_next(in, "worker")) {
        succession_load_worker(kamailio, in, descriptors);
        state_get_end(in);
    }
    return !in->at.failed;
}

/* A corrupt intake is never read or opened again: a successor only needs to know that it was corrupt. */
static bool has_readable_queue(const struct kamailio *kamailio)
{
    return kamailio->attachment.intake != NULL && kamailio->attachment.intake->state != INTAKE_CORRUPT;
}

void succession_save_links(const struct kamailio *kamailio, struct state_out *out)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->attachment.workers[i] != NULL) {
            state_put_record(out, "worker");
            seat_save_worker(kamailio->attachment.workers[i], out);
            state_put_end(out);
        }
    if (has_readable_queue(kamailio)) {
        state_put_record(out, "queue");
        intake_save(kamailio->attachment.intake, out);
        state_put_end(out);
    }
    state_put(out, "attachment", (uint64_t)kamailio->attachment.state);
    state_put(out, "hold-ms", hold_left_ms(kamailio));
}

static const char *succession_open_queue(struct kamailio *kamailio, struct descriptors *descriptors)
{
    const int memfd = descriptors_remove(descriptors, "ring");
    const int wake_fd = descriptors_remove(descriptors, "ring-wake");
    if (memfd >= 0 && wake_fd >= 0)
        return attachment_open_queue(kamailio, memfd, wake_fd);
    if (memfd >= 0)
        close(memfd);
    if (wake_fd >= 0)
        close(wake_fd);
    return "it was not kept";
}

/* The presence in the ring is as the last evapid left it, and correct if all clients came over. Without the ring the
 * attachment ends, once everything is ours (succession_adopt). */
static void succession_load_queue(struct kamailio *kamailio, struct state_in *in, struct descriptors *descriptors)
{
    const char *unopened = succession_open_queue(kamailio, descriptors);
    const char *unloaded = intake_load(kamailio->attachment.intake, in);
    const char *why = unopened != NULL ? unopened : unloaded;
    if (why != NULL) {
        attachment_lose_queue(kamailio, why);
    } else if (kamailio->bus->lost > 0) {
        publish_all(kamailio);
        hold_publish_clients(kamailio);
    }
}

/* The posts on the way to a worker; the records are in the order of the workers. */
static bool load_link(struct kamailio *kamailio, struct worker *worker, struct state_in *in)
{
    state_get_record(in, "worker");
    if (!seat_load_worker(kamailio, worker, in))
        return false;
    state_get_end(in);
    return true;
}

bool succession_load_links(struct kamailio *kamailio, struct state_in *in, struct descriptors *descriptors)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (kamailio->attachment.workers[i] != NULL && !load_link(kamailio, kamailio->attachment.workers[i], in))
            return false;
    const bool has_queue = state_get_next(in, "queue");
    if (has_queue) {
        succession_load_queue(kamailio, in, descriptors);
        state_get_end(in);
    }
    const uint64_t attachment = state_get(in, "attachment", DETACHED);
    const uint64_t hold_ms = state_get(in, "hold-ms", 0);
    if (attachment > ATTACHED || (attachment != DETACHED) != (kamailio->attachment.workers_attached > 0) ||
        (attachment != DETACHED && !has_queue) || in->at.failed)
        return state_fail(in);
    attachment_go_on(kamailio, (enum attachment_state)attachment);
    hold_go_on(kamailio, hold_ms);
    return true;
}

/* How many links were not kept? */
static unsigned count_lost_links(const struct kamailio *kamailio)
{
    unsigned lost = 0;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        lost += kamailio->attachment.workers[i] != NULL && kamailio->attachment.workers[i]->lost;
    return lost;
}

void succession_adopt(struct kamailio *kamailio)
{
    char why[160];
    const unsigned lost = count_lost_links(kamailio);
    if (kamailio->attachment.queue_lost != NULL)
        snprintf(why, sizeof(why), "its queue can't be read, because %s", kamailio->attachment.queue_lost);
    else if (lost > 0)
        snprintf(why, sizeof(why), "%u of the %u links to its workers were not kept", lost,
                 kamailio->attachment.workers_attached);
    else
        return;
    log_line(LEVEL_WARNING, SUBJECT,
             "the attachment of pid %u is not taken over: %s; clients stay, and wait until it attaches again",
             kamailio->attachment.pid, why);
    attachment_abandon(kamailio);
}

bool succession_list_sockets(const struct kamailio *kamailio, struct descriptors *descriptors)
{
    bool held = true;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        held = held && (kamailio->attachment.workers[i] == NULL ||
                        descriptors_add(descriptors, kamailio->attachment.workers[i]->fd, "worker-%u", i));
    if (!has_readable_queue(kamailio))
        return held;
    return held && descriptors_add(descriptors, kamailio->attachment.intake->memfd, "ring") &&
           descriptors_add(descriptors, kamailio->attachment.intake->wake_fd, "ring-wake");
}

/* ---- after a kill ----------------------------------------------------------------------------------------------- */

const char *succession_reopen_queue(struct kamailio *kamailio, uint64_t instance, struct descriptors *descriptors,
                                    uint64_t *tail)
{
    const char *why = succession_open_queue(kamailio, descriptors);
    if (why != NULL)
        return why;
    attachment_set_instance(kamailio, instance);
    *tail = kamailio->attachment.intake->ring.tail;
    return NULL;
}

void succession_go_on_alone(struct kamailio *kamailio, uint32_t awaited)
{
    attachment_await_return(kamailio);
    if (kamailio->attachment.intake == NULL)
        return;
    publish_all(kamailio);
    publish_attached(kamailio, false);
    if (awaited > 0) {
        hold_begin(kamailio, awaited + kamailio->bus->roster.receiver_count);
        return;
    }
    intake_resume(kamailio->attachment.intake);
    hold_publish_clients(kamailio);
}
