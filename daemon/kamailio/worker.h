/* A worker: the link to one evapi worker process of Kamailio.
 *
 * It owns the Unix socket on which the process attached, and the posts on it: frames that were put on the link and
 * whose routes have not ended. A message is posted only while the link's window is open, so a slow route slows the
 * clients down instead of using up memory. The host knows what the posts mean (seat.h). */
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

/* A position in the ring number `ring`: the end of everything written at some time (progress.h). */
struct kamailio_mark {
    uint64_t ring, end;
};

/* One frame on its way. sequence 0: not an event; it is freed when it has been written. */
struct post {
    struct post *prev, *next;
    enum wire_type type;
    uint64_t sequence;
    struct seat *seat;
    uint64_t read_ns;   /* of a message: when the client's bytes had been read, by CLOCK_MONOTONIC; else 0 */
    bool written;       /* completely, to the link */
    size_t head_length; /* of the frame without its message; set when it is put on a link */
    unsigned char head[WIRE_HEADER + WIRE_EVENT_HEAD_MAX];
    size_t length; /* of the message */
    char message[];
};

enum worker_state {
    WORKER_GREETING, /* waiting for a HELLO or QUERY */
    WORKER_WAITING,  /* its HELLO or QUERY has come, and waits for its turn */
    WORKER_ATTACHED,
    WORKER_DEPARTED, /* it was attached and has gone; evapid is reading what had been written by then */
    WORKER_ANSWERED, /* it was a stranger with a QUERY: the answer is being written */
    WORKER_CLOSED
};

/* hello: a HELLO has come; its two descriptors belong to the callee. query: a QUERY has come; NULL: queries are not
 * answered. bad_hello: something else has come; hello holds the version if that is wrong; worker->curtailed: the
 * descriptors did not fit into this process. lost: the peer has gone, broke the protocol, or has its answer; the callee
 * closes. written: an event has been written completely. */
struct worker_host {
    void *owner;
    void (*hello)(struct worker *worker, const struct wire_hello *hello, int memfd, int wake_fd);
    void (*query)(struct worker *worker, const struct wire_query *query);
    void (*bad_hello)(struct worker *worker, const struct wire_hello *hello);
    void (*lost)(struct worker *worker, const char *why);
    void (*written)(struct worker *worker, struct post *post);
};

/* The clients of a worker (seat.h). */
struct worker_seats {
    struct seat *first;   /* list of its clients */
    struct seat *waiting; /* list of those that have a message, but found the window closed */
    uint32_t count, waiting_count;
};

struct worker {
    enum worker_state state;
    const struct worker_host *host;
    int fd;
    uv_poll_t poll;
    int watched;              /* events that poll waits for, enum uv_poll_event */
    uint32_t pid, user;       /* of the process, as the kernel reports them */
    struct lifetime lifetime; /* ATTACHED: of the process; when it ends, the link ends */
    uint64_t opened_ms;       /* loop time */
    uint16_t index;
    unsigned char input[WIRE_HEADER + WIRE_HELLO_MAX];
    size_t input_length;
    int passed[2];  /* descriptors that came with the HELLO, -1: not yet */
    bool curtailed; /* descriptors were lost because this process may open no more */

    struct kamailio_mark mark; /* WAITING, DEPARTED: it continues when everything before this has been read */
    const char *why;           /* DEPARTED: why it has gone */
    bool lost;                 /* not taken over from the evapid before us: there is no process at the other end */

    struct post *posts;  /* list, oldest first: all whose routes have not ended */
    struct post *unsent; /* the first that is not completely written, NULL: none */
    size_t unsent_sent;  /* bytes of it that are written */
    bool blocked;
    uint64_t last_sequence;
    size_t in_flight, in_flight_bytes; /* messages among the posts */

    struct worker_seats seats;
    struct worker *prev, *next; /* the host's list */
};

/* Wait for a HELLO on fd. NULL: no memory; fd is closed. */
struct worker *worker_open(uv_loop_t *loop, int fd, const struct worker_host *host);

/* Replace a link that the last evapid did not keep by one whose other end is closed (lost). NULL: it cannot be made. */
struct worker *worker_open_lost(uv_loop_t *loop, const struct worker_host *host);

/* It is now the worker of this number. */
void worker_attach(struct worker *worker, uint16_t index);

/* Watch the link for the events it needs. Also call it once a second, in case the kernel had no room before. */
void worker_watch(struct worker *worker);

/* The link lasts as long as its process, even if others hold the socket: watch for the end of the process. Also call it
 * once a second, in case that failed before. */
void worker_watch_process(struct worker *worker);

/* Make a post with a message of length bytes; NULL: no memory. */
struct post *post_new(enum wire_type type, struct seat *seat, const char *message, size_t length);

/* Put an event on the link, which now owns the post, and give it the next sequence number. */
void worker_post(struct worker *worker, struct post *post, const struct wire_event *event);

/* Put a frame on the link that is not an event, made by a wire_write_* function. False: no memory. */
bool worker_say(struct worker *worker, const void *frame, size_t length);

/* Remove the first post if it has been written and its sequence number is at most up_to; NULL: there is none. The
 * caller frees it. */
struct post *worker_pop_done(struct worker *worker, uint64_t up_to);

/* Remove the last post, done or not; NULL: there is none. For a worker that has gone. */
struct post *worker_pop_last(struct worker *worker);

/* Write as much as the kernel accepts now. */
void worker_flush(struct worker *worker);

/* Send the answer's frame (length 0: there is none). The link is lost when it has been written. */
void worker_answer(struct worker *worker, const void *frame, size_t length);

/* Tell the peer why it cannot attach, and lose the link. */
void worker_refuse(struct worker *worker, const char *reason);

/* Write the worker for a successor, without its descriptor and posts; read it into one that was just opened. False: the
 * state is invalid. */
void worker_save(const struct worker *worker, struct state_out *out);
bool worker_load(struct worker *worker, uint16_t index, struct state_in *in);

/* The same for one post. The caller sets its seat before worker_load_post, which appends it to the link. */
void worker_save_post(const struct worker *worker, const struct post *post, struct state_out *out);
void worker_load_post(struct worker *worker, struct post *post, struct state_in *in);

/* worker_wait: the HELLO or QUERY cannot be handled yet; keep a HELLO's descriptors with it (-1: it is a QUERY).
 * worker_hear_again: handle it again. */
void worker_wait(struct worker *worker, int memfd, int wake_fd);
void worker_hear_again(struct worker *worker);

/* It continues when everything before the mark has been read (WAITING, DEPARTED). */
void worker_set_mark(struct worker *worker, struct kamailio_mark mark);

/* It has gone, but its posts stay for a while. Nothing is read or written any more. */
void worker_depart(struct worker *worker, const char *why, struct kamailio_mark mark);

/* Close and free it. No post with a seat is left. */
void worker_close(struct worker *worker);

#endif
