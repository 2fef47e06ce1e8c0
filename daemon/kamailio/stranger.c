/* Who is at Kamailio's door, and who has to leave it for another. */
#include "kamailio/stranger.h"

#include <unistd.h>
#include <utlist.h>

#include "base/log.h"
#include "net/crowd.h"

#define SUBJECT "kamailio"

static struct log_limit crowds = { .kind = "kamailio: too many connections" };

/* The last one has just come, and is one too many: the oldest of the user who has most leaves. */
static void drop_oldest(struct kamailio *kamailio)
{
    uid_t users[STRANGERS_MAX + 1] = { 0 };
    unsigned count = 0;
    unsigned most = 0;
    struct worker *oldest = NULL;
    DL_FOREACH(kamailio->strangers, oldest)
    users[count++] = oldest->user;
    const uid_t user = crowd_user(users, count, &most);
    for (oldest = kamailio->strangers; oldest->user != user; oldest = oldest->next)
        ;
    log_limited(&crowds, LEVEL_WARNING, SUBJECT,
                "%u connections are no worker's: closed that of pid %u, the oldest of %u that user %u has",
                STRANGERS_MAX, oldest->pid, most, oldest->user);
    oldest->host->lost(oldest, NULL);
}

void strangers_on_connect(void *owner, int fd)
{
    struct kamailio *kamailio = owner;
    struct worker *stranger = worker_open(kamailio->loop, fd, &kamailio->worker_host);
    if (stranger == NULL) {
        log_limited(&crowds, LEVEL_ERROR, SUBJECT, "refused a connection: no memory");
        return;
    }
    DL_APPEND(kamailio->strangers, stranger);
    if (++kamailio->stranger_count > STRANGERS_MAX)
        drop_oldest(kamailio);
}

void strangers_on_query(struct worker *worker, const struct wire_query *query)
{
    struct kamailio *kamailio = worker->host->owner;
    if (kamailio->asking) {
        kamailio->asking = false;
        kamailio->asked(worker, query);
        return;
    }
    worker_wait(worker, -1, -1);
    kamailio->waiting++;
}

void strangers_serve(struct kamailio *kamailio)
{
    struct worker *stranger = NULL;
    struct worker *next = NULL;
    if (kamailio->waiting == 0)
        return;
    kamailio->waiting = 0; /* those that wait on are counted again */
    kamailio->asking = true;
    DL_FOREACH_SAFE(kamailio->strangers, stranger, next)
    if (stranger->state == WORKER_WAITING)
        worker_hear_again(stranger);
    kamailio->asking = false;
}

void strangers_tick(struct kamailio *kamailio)
{
    struct worker *stranger = NULL;
    struct worker *next = NULL;
    DL_FOREACH_SAFE(kamailio->strangers, stranger, next)
    if (stranger->state != WORKER_WAITING && uv_now(kamailio->loop) - stranger->opened_ms >= HELLO_MS)
        kamailio_refuse(stranger, stranger->pid, "no HELLO has come in 5 seconds, or no answer been read");
}
