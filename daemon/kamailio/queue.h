/* The queue: evapid's reading of the ring that Kamailio's processes write (evapid/ring.h).
 *
 * It maps the ring, sleeps until its wake can be read, and hands every record to its host in the order in which they were issued. A
 * batch a loop turn, so that clients are served in between.
 *
 * While it is held, events stay in the ring, where they survive even evapid's death, but control records are read ahead
 * of them: they are what a hold waits for (a client's admission). A close or a tag that was read ahead comes again in its
 * place among the events, because only the host knows whether it could wait for that; a done does not. */
#ifndef EVAPID_QUEUE_H
#define EVAPID_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "evapid/ring.h"
#include "events/framing.h"
#include "kamailio/patience.h"

/* event: a relay, multicast or unicast, by the record's type; payload lies in the ring. control: a close, tag or done, read
 * ahead of its turn or in it. tag: record->tag_length bytes. crowded: the ring is held and nearly full. corrupt: the ring
 * cannot be read any further than position at; the queue has stopped. commit: all before tail has been handed over, and is
 * about to be consumed. busy: clients have their turn before more is read; NULL: never. */
struct state_in;
struct state_out;

struct queue_host {
    void *owner;
    bool (*busy)(void *owner);
    void (*event)(void *owner, const struct ring_record *record, const char *tag, const struct payload *payload);
    void (*control)(void *owner, const struct ring_record *record, const char *tag, bool ahead);
    void (*crowded)(void *owner);
    void (*corrupt)(void *owner, uint64_t at, const char *why);
    void (*commit)(void *owner, uint64_t tail);
};

enum queue_state { QUEUE_RUNNING, QUEUE_HELD, QUEUE_CORRUPT };

/* What is read in one go. */
struct queue_batch {
    unsigned records;
    size_t bytes;
    size_t work; /* clients that were given an event each (queue_note_work) */
};

struct queue {
    enum queue_state state;
    struct queue_host host;
    struct ring_reader ring;
    int memfd;      /* ours, closed with the queue */
    size_t bytes;   /* of the mapping */
    uint64_t ahead; /* control records before this position have been read ahead */
    int wake_fd;    /* the same: one end of a pair of datagram sockets, Kamailio sends by the other */
    uv_poll_t wake;
    bool unwatched;            /* the kernel had no room to watch the wake */
    uv_idle_t turn;            /* active while there is more to read: the loop then does not sleep */
    struct patience events;    /* behind events come more: napping, they are gathered */
    struct patience answers;   /* behind a message to a worker comes its route's answer: looking again at once */
    uint64_t taken_ns;         /* when the first event was taken of those that are handed over now; 0: none was */
    struct queue_batch looks;  /* read in this turn beside its own batch, because somebody looked */
    struct queue_batch *batch; /* that is being read; NULL: none is */
    bool awaited;              /* an answer is: nothing may be left lying for the time of a nap */
    int nap_fd;                /* a timerfd, -1: no naps */
    bool napping;
    uv_poll_t nap;
    size_t high_water;     /* most bytes found waiting */
    unsigned open_handles; /* freed when all are closed */
};

/* Map the memfd and begin to read, held; both descriptors are the queue's from here on, also on failure. Returns NULL and
 * sets *why when it can't. */
struct queue *queue_open(uv_loop_t *loop, int memfd, int wake_fd, const struct queue_host *host, const char **why);

/* Bytes that wait in it now. */
size_t queue_used(const struct queue *queue);

/* The end of a turn: are routes at work whose answers clients wait for, and have some been set to work just now? */
void queue_await_answers(struct queue *queue, bool awaited, bool posted);

void queue_hold(struct queue *queue);
void queue_resume(struct queue *queue);

/* Consume what has been handed over up to now, though the turn goes on. */
void queue_commit(struct queue *queue);

/* Write it for a successor, beside its two descriptors; or read it into a queue that was just opened with them, and is then
 * as it was: held, running or corrupt. Returns NULL, or why it is not that queue; queue NULL: pass over what is said of it. */
void queue_save(const struct queue *queue, struct state_out *out);
const char *queue_load(struct queue *queue, struct state_in *in);

/* Hand over what there is, and look how much there is then: somebody wants to know (queue_used). In one turn of the loop that
 * is no more than a batch, beside the turn's own, however often it is asked for. */
void queue_read_batch(struct queue *queue);

/* From within an event: so many clients were given it, one by one. A batch has a bound for that too. */
void queue_note_work(struct queue *queue, uint32_t clients);

/* The position behind all that has been written up to now; it is going to be read turn by turn. And has all before such a
 * position been handed over (held: its control records)? When nothing is read any more: yes. */
uint64_t queue_end(struct queue *queue);
bool queue_has_read(const struct queue *queue, uint64_t end);

/* Once a second: read what a producer wrote that was killed before it could wake us. */
void queue_tick(struct queue *queue);

/* Unmap and free it. */
void queue_close(struct queue *queue);

/* What evapid publishes back. */
static inline struct presence *queue_presence(const struct queue *queue)
{
    return &queue->ring.header->presence;
}

#endif
