/* Attaching and detaching. */
#include "kamailio/attachment.h"

#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/passed.h"
#include "base/state.h"
#include "base/store.h"
#include "kamailio/hold.h"
#include "kamailio/progress.h"
#include "kamailio/publish.h"
#include "kamailio/seat.h"

#define SUBJECT "kamailio"
#define SHORT_MS 60000U /* a Kamailio that is without a worker for so long does not stop, and does not start */

static struct log_limit shortages = { .kind = "kamailio: missing workers" };
static struct log_limit losses = { .kind = "kamailio: lost workers" };
static struct log_limit attachments = { .kind = "kamailio: attached" };
static struct log_limit detachments = { .kind = "kamailio: detached" };
static struct log_limit corruptions = { .kind = "kamailio: corrupt queues" };
static struct log_limit unfinished = { .kind = "kamailio: lost records" };
static struct log_limit standstills = { .kind = "kamailio: stuck queues" };

/* ---- detaching -------------------------------------------------------------------------------------------------- */

/* A Kamailio has gone. If it asked for that (keep_clients 0), the clients that it had admitted are closed. The ledger
 * keeps this wish, because evapid may be killed before the clients have read what is queued for them. */
static void attachment_end_clients(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment->back_by_ms = 0;
    attachment->gone.pending = false;
    if (kamailio->stopping || kamailio->bus->ledger->header->clients_end == 0)
        return;
    const unsigned closed = seat_close_all(kamailio);
    if (closed > 0)
        log_line(LEVEL_NOTICE, SUBJECT, "closing %u clients: their Kamailio has gone (keep_clients 0)", closed);
}

void attachment_await_return(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment->back_by_ms = uv_now(kamailio->loop) + BACK_MS;
}

/* Kamailio lives and will attach again. Its workers may still answer on behalf of the old links; with a new session
 * number evapid ignores those answers. */
static void attachment_end_session(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment->abandoned = false;
    attachment->before = attachment->session;
    if (++attachment->session == 0)
        attachment->session = 1;
    attachment_await_return(kamailio);
}

static void attachment_detached(struct kamailio *kamailio, const char *why)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment->state = DETACHED;
    bus_set_admits(kamailio->bus, false);
    uv_timer_stop(&attachment->gather);
    log_limited(&detachments, LEVEL_NOTICE, SUBJECT, "detached: pid %u: %s", attachment->pid, why);
    publish_attached(kamailio, false);
    hold_end(kamailio, "Kamailio has gone");
    if (attachment->abandoned || progress_is_stuck(kamailio))
        attachment_end_session(kamailio);
    else
        attachment->gone = (struct kamailio_gone){ .pending = true, .mark = progress_mark(kamailio) };
}

static void attachment_lose_worker(struct kamailio *kamailio, struct worker *worker, const char *why)
{
    struct attachment *attachment = &kamailio->attachment;
    /* After abandon, the workers live and run everything that was sent to them. */
    const uint64_t begun = attachment->abandoned ? UINT64_MAX : progress_begun(kamailio, worker);
    attachment->workers[worker->index] = NULL;
    const bool last = --attachment->workers_attached == 0;
    if (!last) /* no warning: when Kamailio stops, its workers go one after the other */
        log_limited(&losses, LEVEL_INFO, SUBJECT, "worker %u (pid %u): %s", worker->index, worker->pid, why);
    seat_leave_worker(kamailio, worker, begun, last);
    if (last)
        attachment_detached(kamailio, why);
    else if (attachment->state == ATTACHED)
        seat_place_all(kamailio);
}

/* An attached worker has gone, and everything written by then has been read. */
static void attachment_let_go(struct kamailio *kamailio, struct worker *worker, const char *why)
{
    struct attachment *attachment = &kamailio->attachment;
    if (worker->state == WORKER_DEPARTED)
        attachment->departed--;
    attachment_lose_worker(kamailio, worker, why);
    worker_close(worker);
}

void attachment_depart(struct kamailio *kamailio, struct worker *worker, const char *why)
{
    struct attachment *attachment = &kamailio->attachment;
    const struct kamailio_mark mark = progress_catch_up_to(kamailio);
    if (worker->state == WORKER_CLOSED)
        return;
    if (progress_has_read(kamailio, mark)) {
        attachment_let_go(kamailio, worker, why);
        return;
    }
    worker_depart(worker, why, mark);
    attachment->departed++;
}

/* Has everything been read that this worker had written? If no other is left, don't wait for a process of Kamailio that
 * was stopped in its push: a new session begins then, for which what is read later means nothing. */
static bool attachment_can_let_go(const struct kamailio *kamailio, const struct worker *worker)
{
    const struct attachment *attachment = &kamailio->attachment;
    return attachment->departed == attachment->workers_attached ? progress_can_go_on(kamailio, worker->mark)
                                                                : progress_has_read(kamailio, worker->mark);
}

/* At the end of a turn, release departed workers once everything that they had written has been read. */
static void attachment_end_departed(struct kamailio *kamailio)
{
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX && kamailio->attachment.departed > 0; i++) {
        struct worker *worker = kamailio->attachment.workers[i];
        if (worker != NULL && worker->state == WORKER_DEPARTED && attachment_can_let_go(kamailio, worker))
            attachment_let_go(kamailio, worker, worker->why);
    }
}

/* A corrupt ring is not read any further, and its Kamailio is refused. */
void attachment_on_corrupt(void *owner, uint64_t at, const char *why)
{
    struct kamailio *kamailio = owner;
    struct attachment *attachment = &kamailio->attachment;
    log_limited(&corruptions, LEVEL_ERROR, SUBJECT,
                "the queue of pid %u is corrupt at byte %llu: %s; dropping the attachment, restart it", attachment->pid,
                (unsigned long long)at, why);
    attachment->corrupt_instance = attachment->instance;
    attachment->corrupt = true;
    attachment_drop(kamailio, "its queue is corrupt");
}

void attachment_turn(struct kamailio *kamailio)
{
    const struct attachment *attachment = &kamailio->attachment;
    attachment_end_departed(kamailio);
    if (attachment->gone.pending && progress_can_go_on(kamailio, attachment->gone.mark))
        attachment_end_clients(kamailio);
}

static void attachment_end_shortage(struct attachment *attachment)
{
    attachment->short_since_ms = 0;
    attachment->short_said = false;
}

/* A Kamailio that stops loses its workers one by one, and a worker that lost its link attaches again within a second. If a
 * worker stays away from a Kamailio that goes on, somebody should look. */
static void attachment_check_workers(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    const uint64_t now_ms = uv_now(kamailio->loop);
    if (attachment->state != ATTACHED || attachment->workers_attached >= attachment->workers_declared) {
        attachment_end_shortage(attachment);
        return;
    }
    if (attachment->short_since_ms == 0)
        attachment->short_since_ms = now_ms;
    if (attachment->short_said || now_ms - attachment->short_since_ms < SHORT_MS)
        return;
    attachment->short_said = true;
    log_limited(&shortages, LEVEL_WARNING, SUBJECT, "%u of %u workers of pid %u have not been attached for %u s",
                attachment->workers_declared - attachment->workers_attached, attachment->workers_declared,
                attachment->pid, SHORT_MS / 1000);
}

/* Log the records that have been lost since the last time. */
static void attachment_log_lost(struct attachment *attachment)
{
    const uint64_t lost = attachment->intake->lost;
    if (lost == attachment->lost_said)
        return;
    log_limited(&unfinished, LEVEL_WARNING, SUBJECT,
                "%llu events or commands are lost: processes of pid %u did not finish writing them",
                (unsigned long long)(lost - attachment->lost_said), attachment->pid);
    attachment->lost_said = lost;
}

static void attachment_log_queue(struct attachment *attachment)
{
    const bool stuck = intake_is_stuck(attachment->intake);
    attachment_log_lost(attachment);
    if (stuck == attachment->stuck_said)
        return;
    attachment->stuck_said = stuck;
    if (stuck)
        log_limited(&standstills, LEVEL_WARNING, SUBJECT,
                    "the queue is stuck: a process of pid %u was stopped while it wrote there; %zu bytes wait until it "
                    "goes on or ends",
                    attachment->pid, intake_used(attachment->intake));
    else
        log_limited(&standstills, LEVEL_NOTICE, SUBJECT, "the queue of pid %u is not stuck any more", attachment->pid);
}

void attachment_tick(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (attachment->workers[i] != NULL && attachment->workers[i]->state == WORKER_ATTACHED) {
            worker_watch(attachment->workers[i]);
            worker_watch_process(attachment->workers[i]); /* last: it may have ended */
        }
    if (attachment->intake != NULL) {
        intake_tick(attachment->intake);
        attachment_log_queue(attachment);
    }
    if (attachment->back_by_ms != 0 && uv_now(kamailio->loop) >= attachment->back_by_ms)
        attachment_end_clients(kamailio);
    attachment_check_workers(kamailio);
}

/* ---- attaching -------------------------------------------------------------------------------------------------- */

const char *attachment_open_queue(struct kamailio *kamailio, int memfd, int wake_fd)
{
    struct attachment *attachment = &kamailio->attachment;
    const char *why = NULL;
    attachment->intake = intake_open(kamailio->loop, memfd, wake_fd, &kamailio->intake_host, &why);
    return why;
}

/* Store the ring with the service manager, so that it is read to its end even if evapid and Kamailio are both
 * killed. */
static void attachment_keep_queue(const struct kamailio *kamailio, uint64_t instance)
{
    kamailio->bus->ledger->header->instance = instance;
    meter_begin(&kamailio->bus->ledger->header->meter, instance);
    store_keep(kamailio->attachment.intake->memfd, "ring");
    store_keep(kamailio->attachment.intake->wake_fd, "ring-wake");
}

/* Begin to read the ring of a new Kamailio. Returns NULL, or why it cannot be read. */
static const char *attachment_open_intake(struct kamailio *kamailio, uint64_t instance, int memfd, int wake_fd)
{
    struct attachment *attachment = &kamailio->attachment;
    /* The gate delayed this HELLO until all that the last Kamailio had written before it was read. */
    if (attachment->intake != NULL) {
        meter_read(&kamailio->bus->ledger->header->meter, attachment->intake->ring.header);
        attachment_log_lost(attachment);
        intake_close(attachment->intake);
        store_forget("ring");
        store_forget("ring-wake");
    }
    attachment->instance = 0;
    attachment->rings++;
    attachment->lost_said = 0;
    attachment->stuck_said = false;
    const char *why = attachment_open_queue(kamailio, memfd, wake_fd);
    if (why == NULL)
        attachment_keep_queue(kamailio, instance);
    return why;
}

static void attachment_finish_gathering(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    if (attachment->state != GATHERING)
        return;
    uv_timer_stop(&attachment->gather);
    attachment->state = ATTACHED;
    seat_place_all(kamailio);
}

static void attachment_on_gather_over(uv_timer_t *timer)
{
    attachment_finish_gathering(timer->data);
}

static void attachment_gather(struct kamailio *kamailio)
{
    uv_timer_start(&kamailio->attachment.gather, attachment_on_gather_over, GATHER_MS, 0);
}

const char *attachment_begin(struct kamailio *kamailio, const struct wire_hello *hello, int memfd, int wake_fd)
{
    struct attachment *attachment = &kamailio->attachment;
    struct ledger_header *ledger = kamailio->bus->ledger->header;
    const bool another = ledger->instance != hello->instance;
    uint32_t clients_before = 0;
    if (attachment->intake != NULL && attachment->instance == hello->instance) {
        passed_close(memfd);
        passed_close(wake_fd);
    } else {
        const char *why = attachment_open_intake(kamailio, hello->instance, memfd, wake_fd);
        if (why != NULL)
            return why;
        clients_before = atomic_load(&intake_presence(attachment->intake)->expected);
    }
    if (another) {
        attachment_end_clients(kamailio); /* the last Kamailio went while no evapid ran */
        seat_forget_workers(kamailio);
    }
    ledger->clients_end = !hello->keep_clients;
    attachment->back_by_ms = 0;
    attachment->gone.pending = false;
    attachment_end_shortage(attachment); /* the last Kamailio's */
    attachment->since_ms = clock_wall_ms();
    attachment->instance = hello->instance;
    attachment->pid = hello->pid;
    attachment->workers_declared = hello->workers;
    store_reserve(hello->workers);
    wire_text_copy(attachment->module_version, sizeof(attachment->module_version), hello->module_version);
    wire_text_copy(attachment->kamailio_version, sizeof(attachment->kamailio_version), hello->kamailio_version);
    attachment->state = GATHERING;
    bus_set_admits(kamailio->bus, true);
    publish_all(kamailio);
    hold_begin(kamailio, clients_before);
    log_limited(&attachments, LEVEL_NOTICE, SUBJECT,
                "attached: pid %u, Kamailio %s, module %s, %u workers, queue of %zu bytes with %zu waiting",
                attachment->pid, attachment->kamailio_version, attachment->module_version, attachment->workers_declared,
                attachment->intake->ring.capacity, intake_used(attachment->intake));
    return NULL;
}

void attachment_add(struct kamailio *kamailio, struct worker *worker, uint16_t index)
{
    struct attachment *attachment = &kamailio->attachment;
    progress_begin(kamailio, index);
    worker_attach(worker, index);
    attachment->workers[index] = worker;
    attachment->workers_attached++;
    publish_attached(kamailio, true);
    if (attachment->state == ATTACHED)
        seat_place_all(kamailio);
    else if (attachment->workers_attached == attachment->workers_declared)
        attachment_finish_gathering(kamailio);
    else
        attachment_gather(kamailio);
    worker_watch_process(worker); /* last: it may have ended */
}

void attachment_cancel(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment->state = DETACHED;
    bus_set_admits(kamailio->bus, false);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

const char *attachment_open(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    /* The ledger tells whose clients these are. If there is a state, it replaces both (attachment_load). */
    if (attachment->session == 0)
        attachment->before = (uint32_t)kamailio->bus->ledger->header->session;
    while (attachment->session == 0)
        if (getrandom(&attachment->session, sizeof(attachment->session), 0) < 0)
            return "no random number is to be had";
    uv_timer_init(kamailio->loop, &attachment->gather);
    attachment->gather.data = kamailio;
    return NULL;
}

void attachment_drop(struct kamailio *kamailio, const char *why)
{
    const struct attachment *attachment = &kamailio->attachment;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (attachment->workers[i] != NULL)
            attachment_let_go(kamailio, attachment->workers[i], why);
}

static void attachment_close_queue(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    if (attachment->intake != NULL)
        intake_close(attachment->intake);
    attachment->intake = NULL;
}

void attachment_close(struct kamailio *kamailio)
{
    attachment_close_queue(kamailio);
    uv_close((uv_handle_t *)&kamailio->attachment.gather, NULL);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void attachment_save(const struct kamailio *kamailio, struct state_out *out)
{
    const struct attachment *attachment = &kamailio->attachment;
    state_put(out, "session", attachment->session);
    state_put(out, "session-before", attachment->before);
    state_put(out, "instance", attachment->instance);
    state_put(out, "pid", attachment->pid);
    state_put(out, "since-ms", attachment->since_ms);
    state_put(out, "workers-declared", attachment->workers_declared);
    state_put_text(out, "module-version", attachment->module_version);
    state_put_text(out, "kamailio-version", attachment->kamailio_version);
    state_put(out, "corrupt", attachment->corrupt);
    state_put(out, "corrupt-instance", attachment->corrupt_instance);
    state_put(out, "abandoned", attachment->abandoned);
}

static void load_text(struct state_in *in, const char *name, char *out, size_t room)
{
    wire_text_copy(out, room, state_get_bytes(in, name));
}

bool attachment_load(struct kamailio *kamailio, struct state_in *in)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment->session = (uint32_t)state_get(in, "session", 0);
    attachment->before = (uint32_t)state_get(in, "session-before", 0);
    attachment->instance = state_get(in, "instance", 0);
    attachment->pid = (uint32_t)state_get(in, "pid", 0);
    attachment->since_ms = state_get(in, "since-ms", 0);
    attachment->workers_declared = (uint16_t)state_get(in, "workers-declared", 0);
    load_text(in, "module-version", attachment->module_version, sizeof(attachment->module_version));
    load_text(in, "kamailio-version", attachment->kamailio_version, sizeof(attachment->kamailio_version));
    attachment->corrupt = state_get(in, "corrupt", 0) == 1;
    attachment->corrupt_instance = state_get(in, "corrupt-instance", 0);
    attachment->abandoned = state_get(in, "abandoned", 0) == 1;
    return !in->at.failed && attachment->session != 0 && attachment->workers_declared <= EVAPID_WORKERS_MAX;
}

bool attachment_load_worker(struct kamailio *kamailio, uint16_t index, int fd, struct state_in *in)
{
    struct attachment *attachment = &kamailio->attachment;
    struct worker *worker = fd >= 0 ? worker_open(kamailio->loop, fd, &kamailio->worker_host) : NULL;
    if (worker == NULL)
        worker = worker_open_lost(kamailio->loop, &kamailio->worker_host);
    if (worker == NULL)
        return false;
    attachment->workers[index] = worker;
    attachment->workers_attached++;
    return worker_load(worker, index, in);
}

void attachment_set_instance(struct kamailio *kamailio, uint64_t instance)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment->instance = instance;
}

void attachment_lose_queue(struct kamailio *kamailio, const char *why)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment_close_queue(kamailio);
    attachment->queue_lost = why;
}

void attachment_go_on(struct kamailio *kamailio, enum attachment_state state)
{
    struct attachment *attachment = &kamailio->attachment;
    attachment->state = state;
    if (state == GATHERING)
        attachment_gather(kamailio);
    if (state == DETACHED)
        attachment_await_return(kamailio);
}

void attachment_abandon(struct kamailio *kamailio)
{
    struct attachment *attachment = &kamailio->attachment;
    if (attachment->intake == NULL) {
        store_forget("ring"); /* the next attachment's ring uses these names */
        store_forget("ring-wake");
        attachment->instance = 0;
    }
    attachment->queue_lost = NULL;
    attachment->abandoned = attachment->workers_attached > 0;
    for (unsigned i = 0; i < EVAPID_WORKERS_MAX; i++)
        if (attachment->workers[i] != NULL)
            attachment_depart(kamailio, attachment->workers[i], "it was not taken over");
}
