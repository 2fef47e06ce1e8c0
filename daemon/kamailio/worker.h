/* A worker: the link to one evapi worker process of Kamailio.
 *
 * It owns the Unix socket that the process attached on, and the posts on it: frames that were put on the link and whose
 * routes have not finished. A message is posted only while the link's window is open, so that a slow route holds back the
 * clients and not memory. What the posts mean is its host's business (seat.h). */
#ifndef EVAPID_WORKER_H
#define EVAPID_WORKER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/lifetime.h"
#include "evapid/wire.h"

struct seat;
struct state_in;
struct state_out;
struct worker;

/* Where in which ring all ends that had been written at some time (progress.h). */
struct kamailio_mark {
    uint64_t ring, end;
};

/* One frame on its way. sequence 0: no event, forgotten when it is written. */
struct post {
    struct post *prev, *next;
    enum wire_type type;
    uint64_t sequence;
    struct seat *seat;
    uint64_t read_ns;   /* a message: when the client's bytes had been read, by CLOCK_MONOTONIC; else 0 */
    bool written;       /* wholly, on a link */
    size_t head_length; /* of the frame without its message; written when it is put on a link */
    unsigned char head[WIRE_HEADER + WIRE_EVENT_HEAD_MAX];
    size_t length; /* of the message */
    char message[];
};

enum worker_state {
    WORKER_GREETING, /* HELLO or QUERY is awaited */
    WORKER_WAITING,  /* it has come, and is heard when its turn comes */
    WORKER_ATTACHED,
    WORKER_DEPARTED, /* it was attached and has gone; what had been written by then is being read */
    WORKER_ANSWERED, /* it was none, but somebody with a QUERY: the answer is being written */
    WORKER_CLOSED
};

/* hello: a HELLO has come, with two descriptors that now belong to the callee. query: a QUERY has come in its place; NULL:
 * nobody answers those. bad_hello: something else has come; hello holds the version if that is what is wrong; or
 * worker->curtailed: its descriptors found no room here. lost: the peer has gone or broken the protocol, or has its answer;
 * the callee closes. written: an event has been written whole. */
struct worker_host {
    void *owner;
    void (*hello)(struct worker *worker, const struct wire_hello *hello, int memfd, int wake_fd);
    void (*query)(struct worker *worker, const struct wire_query *query);
    void (*bad_hello)(struct worker *worker, const struct wire_hello *hello);
    void (*lost)(struct worker *worker, const char *why);
    void (*written)(struct worker *worker, struct post *post);
};

/* Whom a worker serves (seat.h). */
struct worker_seats {
    struct seat *first;   /* list of its clients */
    struct seat *waiting; /* list of those that have a message and found the window closed */
    uint32_t count, waiting_count;
};

struct worker {
    enum worker_state state;
    const struct worker_host *host;
    int fd;
    uv_poll_t poll;
    int watched;              /* what poll waits for, enum uv_poll_event */
    uint32_t pid, user;       /* of the process, by the kernel's word */
    struct lifetime lifetime; /* ATTACHED: the process, whose end is the link's */
    uint64_t opened_ms;       /* loop time */
    uint16_t index;
    unsigned char input[WIRE_HEADER + WIRE_HELLO_MAX];
    size_t input_length;
    int passed[2];  /* descriptors that came with the HELLO, -1: not yet */
    bool curtailed; /* some were lost on the way: this process may open no more */

    struct kamailio_mark mark; /* WAITING, DEPARTED: it goes on when all before that has been read */
    const char *why;           /* DEPARTED: why it has gone */
    bool lost; /* it was not taken over from the evapid before us, and has no process at its other end */

    struct post *posts;  /* list, oldest first: all that are not done */
    struct post *unsent; /* the first that is not wholly written, NULL: all are */
    size_t unsent_sent;  /* bytes of it that are */
    bool blocked;
    uint64_t last_sequence;
    size_t in_flight, in_flight_bytes; /* messages among the posts */

    struct worker_seats seats;
    struct worker *prev, *next; /* the host's list */
};

/* Begin to wait for a HELLO on fd. NULL when there is no memory; fd is closed then. */
struct worker *worker_open(uv_loop_t *loop, int fd, const struct worker_host *host);

/* In place of a link that was not kept by the evapid before us: one whose other end has gone (lost). NULL: there can be none. */
struct worker *worker_open_lost(uv_loop_t *loop, const struct worker_host *host);

/* It is the worker of that number now. */
void worker_attach(struct worker *worker, uint16_t index);

/* Watch the link for what is awaited on it; also once a second, should the kernel have had no room for that. */
void worker_watch(struct worker *worker);

/* The link lasts as long as its process, whoever else may hold the socket: see to it that its end is noticed. Also once a
 * second, should that have been in vain. */
void worker_watch_process(struct worker *worker);

/* Make a post of a message of length bytes; NULL when there is no memory. */
struct post *post_new(enum wire_type type, struct seat *seat, const char *message, size_t length);

/* Put an event on the link; its sequence number is set, and it is the worker's from here on. */
void worker_post(struct worker *worker, struct post *post, const struct wire_event *event);

/* Put a frame on the link that is no event, written by a wire_write_* function. False when there is no memory. */
bool worker_say(struct worker *worker, const void *frame, size_t length);

/* Take the first post off the link if its sequence number is at most up_to and it has been written; NULL: there is none.
 * The caller frees it. */
struct post *worker_take_done(struct worker *worker, uint64_t up_to);

/* Take the last post off the link, done or not; NULL: there is none. For a worker that has been lost. */
struct post *worker_take_back(struct worker *worker);

/* Write what the kernel takes now. */
void worker_flush(struct worker *worker);

/* Give who has asked the frame of an answer (length 0: there is none); the link is lost when it has been written. */
void worker_answer(struct worker *worker, const void *frame, size_t length);

/* Tell the peer why it can't attach; the link is then lost. */
void worker_refuse(struct worker *worker, const char *reason);

/* Write the worker for a successor, beside its descriptor and its posts; and read it into one that was just opened. False:
 * it makes no sense. */
void worker_save(const struct worker *worker, struct state_out *out);
bool worker_load(struct worker *worker, uint16_t index, struct state_in *in);

/* Likewise one post of the link. Its seat is the caller's to set before worker_load_post, which makes it the link's last. */
void worker_save_post(const struct worker *worker, const struct post *post, struct state_out *out);
void worker_load_post(struct worker *worker, struct post *post, struct state_in *in);

/* What has come can't be heard yet; the descriptors of a HELLO (-1: it is a QUERY) are kept with it. And: hear it again. */
void worker_wait(struct worker *worker, int memfd, int wake_fd);
void worker_hear_again(struct worker *worker);

/* It goes on when all before the mark has been read (WAITING, DEPARTED). */
void worker_set_mark(struct worker *worker, struct kamailio_mark mark);

/* It has gone, and its posts are to stay for a while: nothing is read or written any more. */
void worker_depart(struct worker *worker, const char *why, struct kamailio_mark mark);

/* Close and free; there are no posts with a seat any more. */
void worker_close(struct worker *worker);

#endif
