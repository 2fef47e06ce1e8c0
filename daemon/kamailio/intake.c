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
#define HOLE_MS 1000U      /* a push that has not ended for so long is said to be stuck */

static void intake_on_turn(uv_idle_t *turn);
static void intake_on_closed(uv_handle_t *handle);

static bool intake_reads(const struct intake *intake)
{
    return intake->state == INTAKE_RUNNING || intake->state == INTAKE_HELD;
}

void intake_commit(struct intake *intake)
{
    intake->host.commit(intake->host.owner, intake->ring.tail);
    ring_release(&intake->ring);
}

static void intake_fail(struct intake *intake, uint64_t at, const char *why)
{
    intake->state = INTAKE_CORRUPT;
    intake_commit(intake);
    uv_idle_stop(&intake->turn);
    uv_poll_stop(&intake->wake);
    intake->host.corrupt(intake->host.owner, at, why);
}

size_t intake_used(const struct intake *intake)
{
    return (size_t)(intake->ring.head - intake->ring.tail);
}

static void intake_note_high_water(struct intake *intake)
{
    const size_t used = intake_used(intake);
    if (used > intake->high_water)
        intake->high_water = used;
}

/* length bytes of the ring from position at. */
static struct payload intake_payload(struct intake *intake, uint64_t at, size_t length)
{
    if (intake->taken_ns == 0)
        intake->taken_ns = histogram_clock_ns();
    const unsigned char *records = ring_records(intake->ring.header);
    const size_t place = (size_t)at & (intake->ring.capacity - 1);
    const size_t first = length < intake->ring.capacity - place ? length : intake->ring.capacity - place;
    return (struct payload){ .part = { records + place, records },
                             .length = { first, length - first },
                             .taken_ns = intake->taken_ns };
}

/* Copy the record's tag out of the ring, then pass the record on: the ring may change while we look, the copy cannot.
 * The host copies the payload, directly to where it is sent from. */
static void intake_hand_over(struct intake *intake, uint64_t at, const struct ring_record *record)
{
    char tag[EVAPID_TAG_MAX];
    at += sizeof(*record);
    ring_copy(&intake->ring, at, tag, record->tag_length);
    if (ring_type_is_control(record->type)) {
        intake->host.control(intake->host.owner, record, tag, intake->state == INTAKE_HELD);
        return;
    }
    const struct payload payload = intake_payload(intake, at + record->tag_length, record->payload_length);
    intake->host.event(intake->host.owner, record, tag, &payload);
}

/* Everything before this position has been passed on in its turn. The host may have held the intake meanwhile. */
static void intake_pass(struct intake *intake, uint64_t position)
{
    intake->ring.tail = position;
    if (intake->state == INTAKE_HELD && (int64_t)(intake->ahead - position) < 0)
        intake->ahead = position;
}

static uint64_t intake_position(const struct intake *intake)
{
    return intake->state == INTAKE_HELD ? intake->ahead : intake->ring.tail;
}

/* The record before this position is that of a producer which died in the middle of its push. Returns its size. */
static size_t intake_pass_lost(struct intake *intake, uint64_t position)
{
    const size_t size = (size_t)(position - intake_position(intake));
    if (intake->state == INTAKE_HELD) {
        intake->ahead = position;
        return size; /* counted when its turn comes */
    }
    _Atomic uint64_t *lost = &intake->ring.header->lost;
    atomic_store_explicit(lost, atomic_load_explicit(lost, memory_order_relaxed) + 1, memory_order_relaxed);
    intake->lost++;
    intake->ring.tail = position;
    return size;
}

/* Read one record: at tail, or while held, the next unread one. Returns its size, 0: there is none. */
static size_t intake_step(struct intake *intake)
{
    const bool held = intake->state == INTAKE_HELD;
    const uint64_t at = held ? intake->ahead : intake->ring.tail;
    struct ring_record record;
    const char *why = NULL;
    const enum ring_read read = ring_peek(&intake->ring, at, &record, &why);
    if (read == RING_CORRUPT)
        intake_fail(intake, at, why);
    if (read != RING_RECORD)
        return 0;
    intake_note_high_water(intake);
    if (record.type == RING_LOST)
        return intake_pass_lost(intake, at + record.size);
    /* Sequence numbers start again with each link, so a done must not be passed on twice. */
    const bool heard = record.type == RING_DONE && (int64_t)(intake->ahead - at) > 0;
    patience_rewarded(record.type == RING_DONE ? &intake->answers : &intake->events);
    if (held)
        intake->ahead = at + record.size;
    if (held ? ring_type_is_control(record.type) : !heard)
        intake_hand_over(intake, at, &record);
    if (!held && intake_reads(intake))
        intake_pass(intake, at + record.size);
    return record.size;
}

/* Look again in a moment, without having to be woken. Clients get what comes meanwhile together. */
static void intake_nap(struct intake *intake)
{
    const struct itimerspec while_ = { .it_value = { .tv_nsec = PATIENCE_NS } };
    timerfd_settime(intake->nap_fd, 0, &while_, NULL);
    intake->napping = true;
    uv_idle_stop(&intake->turn);
}

static void intake_on_nap_over(uv_poll_t *nap, int status, int events)
{
    struct intake *intake = nap->data;
    uint64_t count = 0;
    (void)status;
    (void)events;
    intake->napping = false;
    if (read(intake->nap_fd, &count, sizeof(count)) == (ssize_t)sizeof(count) && intake_reads(intake))
        uv_idle_start(&intake->turn, intake_on_turn);
}

/* The ring is empty; this turn has read so many bytes. */
static void intake_rest(struct intake *intake, size_t bytes)
{
    const uint64_t now_ns = uv_hrtime();
    if (patience_lasts(&intake->answers, now_ns)) {
        if (bytes == 0)
            sched_yield(); /* let others use this processor, perhaps the worker, before we look again */
        return;
    }
    if (bytes > 0)
        patience_begin(&intake->events, now_ns);
    if (patience_lasts(&intake->events, now_ns) && intake->nap_fd >= 0 && !intake->awaited)
        intake_nap(intake);
    else if (ring_sleep(&intake->ring, intake_position(intake)))
        uv_idle_stop(&intake->turn);
}

void intake_await_answers(struct intake *intake, bool awaited, bool posted)
{
    intake->awaited = awaited;
    intake->looks = (struct intake_batch){ .records = 0 };
    if (!awaited || !intake_reads(intake))
        return;
    if (posted)
        patience_begin(&intake->answers, uv_hrtime());
    if (uv_is_active((const uv_handle_t *)&intake->turn) || (intake->answers.until_ns == 0 && !intake->napping))
        return;
    ring_wake(&intake->ring);
    uv_idle_start(&intake->turn, intake_on_turn);
}

/* Must the rest wait for another turn? */
static bool batch_is_full(const struct intake_batch *batch)
{
    return batch->records >= BATCH_RECORDS || batch->bytes >= BATCH_BYTES || batch->work >= BATCH_WORK;
}

/* Read records until the batch is full. Returns their bytes; *emptied: there are no more. */
static size_t intake_read(struct intake *intake, struct intake_batch *batch, bool *emptied)
{
    const size_t before = batch->bytes;
    *emptied = false;
    intake->taken_ns = 0;
    if (!ring_refresh(&intake->ring))
        intake_fail(intake, intake_position(intake), "a claim is out of range");
    intake->batch = batch;
    while (!*emptied && intake_reads(intake) && !batch_is_full(batch)) {
        const size_t size = intake_step(intake);
        *emptied = size == 0;
        batch->bytes += size;
        batch->records++;
    }
    intake->batch = NULL;
    if (intake_reads(intake))
        intake_commit(intake);
    return batch->bytes - before;
}

void intake_note_work(struct intake *intake, uint32_t clients)
{
    if (intake->batch != NULL)
        intake->batch->work += clients;
}

void intake_read_batch(struct intake *intake)
{
    bool emptied = false;
    if (!intake_reads(intake))
        return;
    intake_read(intake, &intake->looks, &emptied);
    if (intake_reads(intake))
        intake_note_high_water(intake);
}

uint64_t intake_end(struct intake *intake)
{
    if (!intake_reads(intake))
        return intake->ring.tail;
    uv_idle_start(&intake->turn, intake_on_turn); /* read it without being woken */
    ring_refresh(&intake->ring);                  /* corruption is reported when it is read */
    return intake->ring.head;
}

bool intake_has_read(const struct intake *intake, uint64_t end)
{
    return !intake_reads(intake) || (int64_t)(intake_position(intake) - end) >= 0;
}

static void intake_on_turn(uv_idle_t *turn)
{
    struct intake *intake = turn->data;
    struct intake_batch batch = { .records = 0 };
    bool emptied = false;
    intake->napping = false;
    if (intake->host.busy != NULL && intake->host.busy(intake->host.owner))
        return; /* the next turn looks again */
    const size_t bytes = intake_read(intake, &batch, &emptied);
    if (emptied && intake_reads(intake))
        intake_rest(intake, bytes);
    if (intake->state == INTAKE_HELD &&
        intake_used(intake) > intake->ring.capacity - ring_reserve(intake->ring.capacity) / 2)
        intake->host.crowded(intake->host.owner);
}

/* Has somebody shut the wake down? Then it stays readable, with nothing to read. */
static bool is_shut(int wake_fd)
{
    struct pollfd end = { .fd = wake_fd, .events = POLLRDHUP };
    return poll(&end, 1, 0) > 0 && (end.revents & (POLLRDHUP | POLLHUP)) != 0;
}

/* Reading cannot block: wake_objection has checked what kind of socket it is. */
static void intake_on_wake(uv_poll_t *wake, int status, int events)
{
    struct intake *intake = wake->data;
    char byte = 0;
    bool curtailed = false;
    (void)events;
    const ssize_t n = passed_receive(intake->wake_fd, &byte, sizeof(byte), NULL, 0, &curtailed);
    const bool nothing = n < 0 && (errno == EAGAIN || errno == EINTR);
    if (status < 0 || n == 0 || (n < 0 && !nothing) || (nothing && is_shut(intake->wake_fd))) {
        intake_fail(intake, intake->ring.tail, "its wake has been shut down");
        return;
    }
    uv_idle_start(&intake->turn, intake_on_turn);
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

static const char *intake_map(struct intake *intake, int memfd)
{
    struct stat file;
    struct ring_start start = { 0 };
    const int seals = fcntl(memfd, F_GET_SEALS);
    if (seals < 0 || (seals & (F_SEAL_SHRINK | F_SEAL_GROW)) != (F_SEAL_SHRINK | F_SEAL_GROW))
        return "its memory is not sealed against a change of size";
    if (pread(memfd, &start, sizeof(start), 0) == sizeof(start) && ring_is_of_another_version(&start))
        return RING_OTHER_VERSION; /* its header, and so its size, may differ from ours */
    if (fstat(memfd, &file) != 0 || !is_ring_size(file.st_size))
        return "its memory is of no size that a ring can have";
    intake->bytes = (size_t)file.st_size;
    void *memory = mmap(NULL, intake->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (memory == MAP_FAILED)
        return strerror(errno);
    const char *why = ring_open(&intake->ring, memory, intake->bytes);
    if (why != NULL)
        munmap(memory, intake->bytes);
    return why;
}

/* Without a timer there are no naps, but the ring is still read. */
static void intake_open_nap(struct intake *intake, uv_loop_t *loop)
{
    intake->nap_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (intake->nap_fd >= 0 &&
        (!watch_has_room(loop, intake->nap_fd) || uv_poll_init(loop, &intake->nap, intake->nap_fd) != 0)) {
        close(intake->nap_fd);
        intake->nap_fd = -1;
    }
    if (intake->nap_fd < 0)
        return;
    intake->open_handles++;
    intake->nap.data = intake;
    if (watch_start(&intake->nap, UV_READABLE, intake_on_nap_over) == 0)
        return;
    uv_close((uv_handle_t *)&intake->nap, intake_on_closed);
    close(intake->nap_fd);
    intake->nap_fd = -1;
}

/* If the kernel has no room to watch the wake, intake_tick reads the ring once a second and tries again. */
static void intake_watch_wake(struct intake *intake)
{
    intake->unwatched = watch_start(&intake->wake, UV_READABLE, intake_on_wake) != 0;
}

/* Both descriptors are valid: watch them. */
static const char *intake_watch(struct intake *intake, uv_loop_t *loop)
{
    if (!watch_has_room(loop, intake->wake_fd) || uv_poll_init(loop, &intake->wake, intake->wake_fd) != 0)
        return "no memory";
    uv_idle_init(loop, &intake->turn);
    intake->open_handles = 2;
    intake->wake.data = intake;
    intake->turn.data = intake;
    intake_watch_wake(intake);
    uv_idle_start(&intake->turn, intake_on_turn);
    intake_open_nap(intake, loop);
    return NULL;
}

struct intake *intake_open(uv_loop_t *loop, int memfd, int wake_fd, const struct intake_host *host, const char **why)
{
    struct intake *intake = calloc(1, sizeof(*intake));
    *why = intake == NULL ? "no memory" : wake_objection(wake_fd);
    if (*why == NULL)
        *why = intake_map(intake, memfd);
    if (*why == NULL) {
        intake->host = *host;
        intake->memfd = memfd;
        intake->wake_fd = wake_fd;
        intake->ahead = intake->ring.tail;
        intake->state = INTAKE_HELD;
        *why = intake_watch(intake, loop);
        if (*why != NULL)
            munmap(intake->ring.header, intake->bytes);
    }
    if (*why != NULL) {
        passed_close(memfd);
        passed_close(wake_fd);
        free(intake);
        return NULL;
    }
    intake_note_high_water(intake);
    return intake;
}

void intake_hold(struct intake *intake)
{
    if (intake->state != INTAKE_RUNNING)
        return;
    intake->state = INTAKE_HELD;
    if ((int64_t)(intake->ahead - intake->ring.tail) < 0)
        intake->ahead = intake->ring.tail;
}

void intake_resume(struct intake *intake)
{
    if (intake->state != INTAKE_HELD)
        return;
    intake->state = INTAKE_RUNNING;
    uv_idle_start(&intake->turn, intake_on_turn);
}

/* Have all of Kamailio's processes ended? Then nobody has the other end of the wake any more. Our byte for it is read by
 * nobody. */
static bool is_deserted(int wake_fd)
{
    return send(wake_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && (errno == ECONNREFUSED || errno == ENOTCONN);
}

bool intake_is_stuck(const struct intake *intake)
{
    return intake_reads(intake) && intake->hole_since_ms != 0 && intake->hole == intake_position(intake) &&
           uv_now(intake->turn.loop) - intake->hole_since_ms >= HOLE_MS;
}

void intake_skip_hole(struct intake *intake)
{
    const uint64_t at = intake_position(intake);
    if (!intake_reads(intake) || !ring_is_hole(&intake->ring, at))
        return;
    const uint64_t end = ring_skip(&intake->ring, at);
    intake_pass_lost(intake, end != 0 ? end : intake->ring.head);
    uv_idle_start(&intake->turn, intake_on_turn);
}

/* Kamailio's processes close the holes of those that have died. If all have died, it is up to us. */
static void intake_look_for_hole(struct intake *intake)
{
    const uint64_t at = intake_position(intake);
    struct ring_record record;
    const char *why = NULL;
    if (ring_peek(&intake->ring, at, &record, &why) != RING_EMPTY || !ring_is_hole(&intake->ring, at)) {
        intake->hole_since_ms = 0;
        return;
    }
    if (intake->hole_since_ms == 0 || intake->hole != at)
        intake->hole_since_ms = uv_now(intake->turn.loop);
    intake->hole = at;
    if (is_deserted(intake->wake_fd))
        intake_skip_hole(intake);
}

void intake_tick(struct intake *intake)
{
    if (!intake_reads(intake))
        return;
    intake_look_for_hole(intake);
    if (intake->unwatched)
        intake_watch_wake(intake);
    uv_idle_start(&intake->turn, intake_on_turn);
}

static void intake_on_closed(uv_handle_t *handle)
{
    struct intake *intake = handle->data;
    if (--intake->open_handles == 0)
        free(intake);
}

void intake_close(struct intake *intake)
{
    intake->state = INTAKE_CORRUPT; /* nothing is read any more */
    uv_close((uv_handle_t *)&intake->wake, intake_on_closed);
    uv_close((uv_handle_t *)&intake->turn, intake_on_closed);
    if (intake->nap_fd >= 0) {
        uv_close((uv_handle_t *)&intake->nap, intake_on_closed);
        close(intake->nap_fd);
    }
    close(intake->wake_fd);
    close(intake->memfd);
    munmap(intake->ring.header, intake->bytes);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void intake_save(const struct intake *intake, struct state_out *out)
{
    state_put(out, "state", (uint64_t)intake->state);
    state_put(out, "ahead", intake->ahead);
    state_put(out, "high-water", intake->high_water);
}

const char *intake_load(struct intake *intake, struct state_in *in)
{
    const uint64_t state = state_get(in, "state", INTAKE_CORRUPT + 1);
    const uint64_t ahead = state_get(in, "ahead", intake != NULL ? intake->ring.tail : 0);
    const size_t high_water = (size_t)state_get(in, "high-water", 0);
    if (state > INTAKE_CORRUPT || in->at.failed)
        state_fail(in);
    if (intake == NULL || in->at.failed)
        return "it is not there";
    const uint64_t waiting = intake->ring.head - intake->ring.tail;
    if ((int64_t)(ahead - intake->ring.tail) > 0 && ahead - intake->ring.tail > waiting)
        return "it is another one";
    intake->state = (enum intake_state)state;
    intake->ahead = ahead;
    if (high_water > intake->high_water)
        intake->high_water = high_water;
    if (intake->state == INTAKE_CORRUPT) {
        uv_idle_stop(&intake->turn);
        uv_poll_stop(&intake->wake);
    }
    return NULL;
}
