/* Reading the ring. */
#include "kamailio/intake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/passed.h"
#include "base/state.h"
#include "base/watch.h"

#define BATCH_RECORDS 1024U
#define BATCH_BYTES 65536U /* of one loop turn, one chunk's size: clients are flushed in between */
#define BATCH_WORK 20000U  /* the same, clients given an event, counted per event: some milliseconds */

static void queue_on_turn(uv_idle_t *turn);
static void queue_on_closed(uv_handle_t *handle);

static bool queue_reads(const struct queue *queue)
{
    return queue->state == QUEUE_RUNNING || queue->state == QUEUE_HELD;
}

void queue_commit(struct queue *queue)
{
    queue->host.commit(queue->host.owner, queue->ring.tail);
    ring_release(&queue->ring);
}

static void queue_fail(struct queue *queue, uint64_t at, const char *why)
{
    queue->state = QUEUE_CORRUPT;
    queue_commit(queue);
    uv_idle_stop(&queue->turn);
    uv_poll_stop(&queue->wake);
    queue->host.corrupt(queue->host.owner, at, why);
}

size_t queue_used(const struct queue *queue)
{
    return (size_t)(queue->ring.head - queue->ring.tail);
}

static void queue_note_high_water(struct queue *queue)
{
    const size_t used = queue_used(queue);
    if (used > queue->high_water)
        queue->high_water = used;
}

/* length bytes of the ring from position at. */
static struct payload queue_payload(struct queue *queue, uint64_t at, size_t length)
{
    if (queue->taken_ns == 0)
        queue->taken_ns = histogram_clock_ns();
    const unsigned char *records = ring_records(queue->ring.header);
    const size_t place = (size_t)at & (queue->ring.capacity - 1);
    const size_t first = length < queue->ring.capacity - place ? length : queue->ring.capacity - place;
    return (struct payload){ .part = { records + place, records },
                             .length = { first, length - first },
                             .taken_ns = queue->taken_ns };
}

/* Copy the record's tag out of the ring, then pass the record on: the ring may change while we look, the copy cannot.
 * The host copies the payload, directly to where it is sent from. */
static void queue_hand_over(struct queue *queue, uint64_t at, const struct ring_record *record)
{
    char tag[EVAPID_TAG_MAX];
    at += sizeof(*record);
    ring_copy(&queue->ring, at, tag, record->tag_length);
    if (ring_type_is_control(record->type)) {
        queue->host.control(queue->host.owner, record, tag, queue->state == QUEUE_HELD);
        return;
    }
    const struct payload payload = queue_payload(queue, at + record->tag_length, record->payload_length);
    queue->host.event(queue->host.owner, record, tag, &payload);
}

/* Everything before this position has been passed on in its turn. The host may have held the queue meanwhile. */
static void queue_pass(struct queue *queue, uint64_t position)
{
    queue->ring.tail = position;
    if (queue->state == QUEUE_HELD && (int64_t)(queue->ahead - position) < 0)
        queue->ahead = position;
}

/* Read one record: at tail, or while held, the next unread one. Returns its size, 0: there is none. */
static size_t queue_step(struct queue *queue)
{
    const bool held = queue->state == QUEUE_HELD;
    const uint64_t at = held ? queue->ahead : queue->ring.tail;
    struct ring_record record;
    const char *why = NULL;
    const enum ring_read read = ring_peek(&queue->ring, at, &record, &why);
    if (read == RING_CORRUPT)
        queue_fail(queue, at, why);
    if (read != RING_RECORD)
        return 0;
    queue_note_high_water(queue);
    /* Sequence numbers start again with each link, so a done must not be passed on twice. */
    const bool heard = record.type == RING_DONE && (int64_t)(queue->ahead - at) > 0;
    patience_rewarded(record.type == RING_DONE ? &queue->answers : &queue->events);
    if (held)
        queue->ahead = at + record.size;
    if (held ? ring_type_is_control(record.type) : !heard)
        queue_hand_over(queue, at, &record);
    if (!held && queue_reads(queue))
        queue_pass(queue, at + record.size);
    return record.size;
}

static uint64_t queue_position(const struct queue *queue)
{
    return queue->state == QUEUE_HELD ? queue->ahead : queue->ring.tail;
}

/* Look again in a moment, without having to be woken. Clients get what comes meanwhile together. */
static void queue_nap(struct queue *queue)
{
    const struct itimerspec while_ = { .it_value = { .tv_nsec = PATIENCE_NS } };
    timerfd_settime(queue->nap_fd, 0, &while_, NULL);
    queue->napping = true;
    uv_idle_stop(&queue->turn);
}

static void queue_on_nap_over(uv_poll_t *nap, int status, int events)
{
    struct queue *queue = nap->data;
    uint64_t count = 0;
    (void)status;
    (void)events;
    queue->napping = false;
    if (read(queue->nap_fd, &count, sizeof(count)) == (ssize_t)sizeof(count) && queue_reads(queue))
        uv_idle_start(&queue->turn, queue_on_turn);
}

/* The ring is empty; this turn has read so many bytes. */
static void queue_rest(struct queue *queue, size_t bytes)
{
    const uint64_t now_ns = uv_hrtime();
    if (patience_lasts(&queue->answers, now_ns)) {
        if (bytes == 0)
            sched_yield(); /* let others use this processor, perhaps the worker, before we look again */
        return;
    }
    if (bytes > 0)
        patience_begin(&queue->events, now_ns);
    if (patience_lasts(&queue->events, now_ns) && queue->nap_fd >= 0 && !queue->awaited)
        queue_nap(queue);
    else if (ring_sleep(&queue->ring, queue_position(queue)))
        uv_idle_stop(&queue->turn);
}

void queue_await_answers(struct queue *queue, bool awaited, bool posted)
{
    queue->awaited = awaited;
    queue->looks = (struct queue_batch){ .records = 0 };
    if (!awaited || !queue_reads(queue))
        return;
    if (posted)
        patience_begin(&queue->answers, uv_hrtime());
    if (uv_is_active((const uv_handle_t *)&queue->turn) || (queue->answers.until_ns == 0 && !queue->napping))
        return;
    ring_wake(&queue->ring);
    uv_idle_start(&queue->turn, queue_on_turn);
}

/* Must the rest wait for another turn? */
static bool batch_is_full(const struct queue_batch *batch)
{
    return batch->records >= BATCH_RECORDS || batch->bytes >= BATCH_BYTES || batch->work >= BATCH_WORK;
}

/* Read records until the batch is full. Returns their bytes; *emptied: there are no more. */
static size_t queue_read(struct queue *queue, struct queue_batch *batch, bool *emptied)
{
    const size_t before = batch->bytes;
    *emptied = false;
    queue->taken_ns = 0;
    queue->batch = batch;
    while (!*emptied && queue_reads(queue) && !batch_is_full(batch)) {
        const size_t size = queue_step(queue);
        *emptied = size == 0;
        batch->bytes += size;
        batch->records++;
    }
    queue->batch = NULL;
    if (queue_reads(queue))
        queue_commit(queue);
    return batch->bytes - before;
}

void queue_note_work(struct queue *queue, uint32_t clients)
{
    if (queue->batch != NULL)
        queue->batch->work += clients;
}

void queue_read_batch(struct queue *queue)
{
    bool emptied = false;
    queue_read(queue, &queue->looks, &emptied);
    if (queue_reads(queue) && ring_refresh(&queue->ring)) /* corruption is reported when it is read */
        queue_note_high_water(queue);
}

uint64_t queue_end(struct queue *queue)
{
    if (!queue_reads(queue))
        return queue->ring.tail;
    uv_idle_start(&queue->turn, queue_on_turn); /* read it without being woken */
    ring_refresh(&queue->ring);
    return queue->ring.head;
}

bool queue_has_read(const struct queue *queue, uint64_t end)
{
    return !queue_reads(queue) || (int64_t)(queue_position(queue) - end) >= 0;
}

static void queue_on_turn(uv_idle_t *turn)
{
    struct queue *queue = turn->data;
    struct queue_batch batch = { .records = 0 };
    bool emptied = false;
    queue->napping = false;
    if (queue->host.busy != NULL && queue->host.busy(queue->host.owner))
        return; /* the next turn looks again */
    const size_t bytes = queue_read(queue, &batch, &emptied);
    if (emptied && queue_reads(queue))
        queue_rest(queue, bytes);
    if (queue->state == QUEUE_HELD && queue_used(queue) > queue->ring.capacity - ring_reserve(queue->ring.capacity) / 2)
        queue->host.crowded(queue->host.owner);
}

/* Has somebody shut the wake down? Then it stays readable, with nothing to read. */
static bool is_shut(int wake_fd)
{
    struct pollfd end = { .fd = wake_fd, .events = POLLRDHUP };
    return poll(&end, 1, 0) > 0 && (end.revents & (POLLRDHUP | POLLHUP)) != 0;
}

/* Reading cannot block: wake_objection has checked what kind of socket it is. */
static void queue_on_wake(uv_poll_t *wake, int status, int events)
{
    struct queue *queue = wake->data;
    char byte = 0;
    bool curtailed = false;
    (void)events;
    const ssize_t n = passed_receive(queue->wake_fd, &byte, sizeof(byte), NULL, 0, &curtailed);
    const bool nothing = n < 0 && (errno == EAGAIN || errno == EINTR);
    if (status < 0 || n == 0 || (n < 0 && !nothing) || (nothing && is_shut(queue->wake_fd))) {
        queue_fail(queue, queue->ring.tail, "its wake has been shut down");
        return;
    }
    uv_idle_start(&queue->turn, queue_on_turn);
}

/* NULL, or why this is not one end of a pair of Unix datagram sockets. Anything else could block us when we read it, or
 * stay readable without end. */
static const char *wake_objection(int fd)
{
    int domain = 0;
    int type = 0;
    socklen_t size = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 || domain != AF_UNIX ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_DGRAM)
        return "its wake is no Unix datagram socket";
    return is_shut(fd) ? "its wake has been shut down: restart Kamailio" : NULL;
}

/* Can a ring have this size? This also refuses huge-page memory, whose size is always a multiple of the page: its owner
 * can remove such a page again, and if no other page is free then, reading it raises SIGBUS. */
static bool is_ring_size(off_t bytes)
{
    const off_t capacity = bytes - (off_t)RING_DATA_OFFSET;
    return bytes >= (off_t)ring_bytes(EVAPID_RING_MIN) && bytes <= (off_t)ring_bytes(EVAPID_RING_MAX) &&
           (capacity & (capacity - 1)) == 0;
}

static const char *queue_map(struct queue *queue, int memfd)
{
    struct stat file;
    const int seals = fcntl(memfd, F_GET_SEALS);
    if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW))
        return "its memory is not sealed against a change of size";
    if (fstat(memfd, &file) != 0 || !is_ring_size(file.st_size))
        return "its memory is of no size that a ring can have";
    queue->bytes = (size_t)file.st_size;
    void *memory = mmap(NULL, queue->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (memory == MAP_FAILED)
        return strerror(errno);
    const char *why = ring_open(&queue->ring, memory, queue->bytes);
    if (why != NULL)
        munmap(memory, queue->bytes);
    return why;
}

/* Without a timer there are no naps, but the ring is still read. */
static void queue_open_nap(struct queue *queue, uv_loop_t *loop)
{
    queue->nap_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (queue->nap_fd >= 0 &&
        (!watch_has_room(loop, queue->nap_fd) || uv_poll_init(loop, &queue->nap, queue->nap_fd) != 0)) {
        close(queue->nap_fd);
        queue->nap_fd = -1;
    }
    if (queue->nap_fd < 0)
        return;
    queue->open_handles++;
    queue->nap.data = queue;
    if (watch_start(&queue->nap, UV_READABLE, queue_on_nap_over) == 0)
        return;
    uv_close((uv_handle_t *)&queue->nap, queue_on_closed);
    close(queue->nap_fd);
    queue->nap_fd = -1;
}

/* If the kernel has no room to watch the wake, queue_tick reads the ring once a second and tries again. */
static void queue_watch_wake(struct queue *queue)
{
    queue->unwatched = watch_start(&queue->wake, UV_READABLE, queue_on_wake) != 0;
}

/* Both descriptors are valid: watch them. */
static const char *queue_watch(struct queue *queue, uv_loop_t *loop)
{
    if (!watch_has_room(loop, queue->wake_fd) || uv_poll_init(loop, &queue->wake, queue->wake_fd) != 0)
        return "no memory";
    uv_idle_init(loop, &queue->turn);
    queue->open_handles = 2;
    queue->wake.data = queue;
    queue->turn.data = queue;
    queue_watch_wake(queue);
    uv_idle_start(&queue->turn, queue_on_turn);
    queue_open_nap(queue, loop);
    return NULL;
}

struct queue *queue_open(uv_loop_t *loop, int memfd, int wake_fd, const struct queue_host *host, const char **why)
{
    struct queue *queue = calloc(1, sizeof(*queue));
    *why = queue == NULL ? "no memory" : wake_objection(wake_fd);
    if (*why == NULL)
        *why = queue_map(queue, memfd);
    if (*why == NULL) {
        queue->host = *host;
        queue->memfd = memfd;
        queue->wake_fd = wake_fd;
        queue->ahead = queue->ring.tail;
        queue->state = QUEUE_HELD;
        *why = queue_watch(queue, loop);
        if (*why != NULL)
            munmap(queue->ring.header, queue->bytes);
    }
    if (*why != NULL) {
        passed_close(memfd);
        passed_close(wake_fd);
        free(queue);
        return NULL;
    }
    queue_note_high_water(queue);
    return queue;
}

void queue_hold(struct queue *queue)
{
    if (queue->state != QUEUE_RUNNING)
        return;
    queue->state = QUEUE_HELD;
    if ((int64_t)(queue->ahead - queue->ring.tail) < 0)
        queue->ahead = queue->ring.tail;
}

void queue_resume(struct queue *queue)
{
    if (queue->state != QUEUE_HELD)
        return;
    queue->state = QUEUE_RUNNING;
    uv_idle_start(&queue->turn, queue_on_turn);
}

void queue_tick(struct queue *queue)
{
    if (!queue_reads(queue))
        return;
    if (queue->unwatched)
        queue_watch_wake(queue);
    uv_idle_start(&queue->turn, queue_on_turn);
}

static void queue_on_closed(uv_handle_t *handle)
{
    struct queue *queue = handle->data;
    if (--queue->open_handles == 0)
        free(queue);
}

void queue_close(struct queue *queue)
{
    queue->state = QUEUE_CORRUPT; /* nothing is read any more */
    uv_close((uv_handle_t *)&queue->wake, queue_on_closed);
    uv_close((uv_handle_t *)&queue->turn, queue_on_closed);
    if (queue->nap_fd >= 0) {
        uv_close((uv_handle_t *)&queue->nap, queue_on_closed);
        close(queue->nap_fd);
    }
    close(queue->wake_fd);
    close(queue->memfd);
    munmap(queue->ring.header, queue->bytes);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void queue_save(const struct queue *queue, struct state_out *out)
{
    state_put(out, "state", (uint64_t)queue->state);
    state_put(out, "ahead", queue->ahead);
    state_put(out, "high-water", queue->high_water);
}

const char *queue_load(struct queue *queue, struct state_in *in)
{
    const uint64_t state = state_take(in, "state", QUEUE_CORRUPT + 1);
    const uint64_t ahead = state_take(in, "ahead", queue != NULL ? queue->ring.tail : 0);
    const size_t high_water = (size_t)state_take(in, "high-water", 0);
    if (state > QUEUE_CORRUPT || in->at.failed)
        state_fail(in);
    if (queue == NULL || in->at.failed)
        return "it is not there";
    const uint64_t waiting = queue->ring.head - queue->ring.tail;
    if ((int64_t)(ahead - queue->ring.tail) > 0 && ahead - queue->ring.tail > waiting)
        return "it is another one";
    queue->state = (enum queue_state)state;
    queue->ahead = ahead;
    if (high_water > queue->high_water)
        queue->high_water = high_water;
    if (queue->state == QUEUE_CORRUPT) {
        uv_idle_stop(&queue->turn);
        uv_poll_stop(&queue->wake);
    }
    return NULL;
}
