/* Who is connected to Kamailio's socket, who may attach, and who has to make room. */
#include "kamailio/gate.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "base/passed.h"
#include "kamailio/attachment.h"
#include "kamailio/progress.h"
#include "net/crowd.h"

#define SUBJECT "kamailio"

static struct log_limit crowds = { .kind = "kamailio: too many connections" };
static struct log_limit refusals = { .kind = "kamailio: refused attachments" };

/* ---- strangers -------------------------------------------------------------------------------------------------- */

static void gate_remove(struct kamailio *kamailio, struct worker *stranger)
{
    struct gate *gate = &kamailio->gate;
    DL_DELETE(gate->strangers, stranger);
    gate->count--;
}

void gate_on_lost(struct worker *worker, const char *why)
{
    struct kamailio *kamailio = worker->host->owner;
    if (worker->state == WORKER_ATTACHED) {
        attachment_depart(kamailio, worker, why);
        return;
    }
    gate_remove(kamailio, worker);
    worker_close(worker);
}

static void gate_refuse(struct worker *worker, uint32_t pid, const char *why)
{
    log_limited(&refusals, LEVEL_WARNING, SUBJECT, "refused pid %u: %s", pid, why);
    worker_refuse(worker, why);
}

/* The last stranger is one too many: close the oldest stranger of the user who has the most. */
static void drop_oldest(struct kamailio *kamailio)
{
    uid_t users[STRANGERS_MAX + 1] = { 0 };
    unsigned count = 0;
    unsigned most = 0;
    struct worker *oldest = NULL;
    DL_FOREACH(kamailio->gate.strangers, oldest)
    users[count++] = oldest->user;
    const uid_t user = crowd_user(users, count, &most);
    for (oldest = kamailio->gate.strangers; oldest->user != user; oldest = oldest->next)
        ;
    log_limited(&crowds, LEVEL_WARNING, SUBJECT,
                "%u connections are no worker's: closed that of pid %u, the oldest of %u that user %u has",
                STRANGERS_MAX, oldest->pid, most, oldest->user);
    oldest->host->lost(oldest, NULL);
}

void gate_on_connect(void *owner, int fd)
{
    struct kamailio *kamailio = owner;
    struct gate *gate = &kamailio->gate;
    struct worker *stranger = worker_open(kamailio->loop, fd, &kamailio->worker_host);
    if (stranger == NULL) {
        log_limited(&crowds, LEVEL_ERROR, SUBJECT, "refused a connection: no memory");
        return;
    }
    DL_APPEND(gate->strangers, stranger);
    if (++gate->count > STRANGERS_MAX)
        drop_oldest(kamailio);
}

void gate_on_query(struct worker *worker, const struct wire_query *query)
{
    struct kamailio *kamailio = worker->host->owner;
    struct gate *gate = &kamailio->gate;
    if (gate->asking) {
        gate->asking = false;
        kamailio->answerer.answer(worker, query);
        return;
    }
    worker_wait(worker, -1, -1);
    gate->waiting++;
}

void gate_serve(struct kamailio *kamailio)
{
    struct gate *gate = &kamailio->gate;
    struct worker *stranger = NULL;
    struct worker *next = NULL;
    if (gate->waiting == 0)
        return;
    gate->waiting = 0; /* those that still wait are counted again */
    gate->asking = true;
    DL_FOREACH_SAFE(gate->strangers, stranger, next)
    if (stranger->state == WORKER_WAITING)
        worker_hear_again(stranger);
    gate->asking = false;
}

void gate_tick(struct kamailio *kamailio)
{
    struct worker *stranger = NULL;
    struct worker *next = NULL;
    DL_FOREACH_SAFE(kamailio->gate.strangers, stranger, next)
    if (stranger->state != WORKER_WAITING && uv_now(kamailio->loop) - stranger->opened_ms >= HELLO_MS)
        gate_refuse(stranger, stranger->pid, "no HELLO has come in 5 seconds, or no answer been read");
}

void gate_close(struct kamailio *kamailio)
{
    while (kamailio->gate.strangers != NULL)
        gate_on_lost(kamailio->gate.strangers, NULL);
}

/* ---- HELLO ------------------------------------------------------------------------------------------------------ */

/* Why this HELLO cannot be accepted, or NULL. reason is a buffer for a composed text. */
static const char *gate_objection(const struct kamailio *kamailio, const struct wire_hello *hello, char reason[128])
{
    if (kamailio->stopping)
        return "evapid is stopping";
    if (kamailio->attachment.corrupt && hello->instance == kamailio->attachment.corrupt_instance)
        return "your queue is corrupt: restart Kamailio";
    if (kamailio->attachment.state != DETACHED && kamailio->attachment.instance != hello->instance) {
        snprintf(reason, 128, "the Kamailio of pid %u is attached, and evapid serves one at a time",
                 kamailio->attachment.pid);
        return reason;
    }
    if (kamailio->attachment.state != DETACHED && kamailio->attachment.workers_declared != hello->workers) {
        snprintf(reason, 128, "you declare %u workers, those before you %u", hello->workers,
                 kamailio->attachment.workers_declared);
        return reason;
    }
    if (kamailio->attachment.workers[hello->worker] != NULL) {
        snprintf(reason, 128, "worker %u is attached already, as pid %u", hello->worker,
                 kamailio->attachment.workers[hello->worker]->pid);
        return reason;
    }
    return NULL;
}

static bool gate_welcome(const struct kamailio *kamailio, struct worker *worker)
{
    unsigned char frame[WIRE_HEADER + 64];
    const struct wire_welcome welcome = { .version = WIRE_VERSION,
                                          .session = kamailio->attachment.session,
                                          .pid = (uint32_t)getpid(),
                                          .evapid_version = { EVAPID_VERSION, strlen(EVAPID_VERSION) } };
    return worker_say(worker, frame, wire_write_welcome(frame, sizeof(frame), &welcome));
}

/* Must evapid first read what departed workers, or the last Kamailio, have written? Then the HELLO waits
 * (gate_serve). */
static bool gate_must_read_before(struct kamailio *kamailio, struct worker *worker, const struct wire_hello *hello)
{
    const bool another = kamailio->attachment.state == DETACHED && kamailio->attachment.instance != hello->instance;
    if (kamailio->stopping || (!another && kamailio->attachment.departed == 0))
        return false;
    if (worker->state != WORKER_WAITING)
        worker_set_mark(worker, progress_catch_up_to(kamailio));
    if (kamailio->attachment.departed > 0)
        return true;
    /* A Kamailio that has gone may have left a process that was stopped in its push: the next one does not wait for it. */
    if (another && !progress_has_read(kamailio, worker->mark))
        progress_skip_stuck(kamailio);
    return !progress_has_read(kamailio, worker->mark);
}

void gate_on_hello(struct worker *worker, const struct wire_hello *hello, int memfd, int wake_fd)
{
    struct kamailio *kamailio = worker->host->owner;
    struct gate *gate = &kamailio->gate;
    char reason[128];
    if (gate_must_read_before(kamailio, worker, hello)) {
        worker_wait(worker, memfd, wake_fd);
        gate->waiting++;
        return;
    }
    const char *why = gate_objection(kamailio, hello, reason);
    const bool first = why == NULL && kamailio->attachment.state == DETACHED;
    if (first) {
        why = attachment_begin(kamailio, hello, memfd, wake_fd);
    } else {
        passed_close(memfd);
        passed_close(wake_fd);
    }
    if (why != NULL) {
        gate_refuse(worker, hello->pid, why);
        return;
    }
    if (!gate_welcome(kamailio, worker) || (first && !declaration_accept(&kamailio->declaration, worker, hello))) {
        if (first)
            attachment_cancel(kamailio);
        log_limited(&refusals, LEVEL_ERROR, SUBJECT, "no memory to attach worker %u of pid %u", hello->worker,
                    hello->pid);
        gate_on_lost(worker, NULL);
        return;
    }
    gate_remove(kamailio, worker);
    attachment_add(kamailio, worker, hello->worker);
}

void gate_on_bad_hello(struct worker *worker, const struct wire_hello *hello)
{
    char reason[128] = "that is no HELLO of evapid's protocol with its two descriptors";
    if (hello->version != 0 && hello->version != WIRE_VERSION)
        snprintf(reason, sizeof(reason),
                 "evapid " EVAPID_VERSION
                 " speaks version %u of the protocol, the module version %u: install a matching one",
                 WIRE_VERSION, hello->version);
    else if (worker->curtailed)
        snprintf(reason, sizeof(reason), "evapid may open no more files for your descriptors: try again");
    gate_refuse(worker, worker->pid, reason);
}
