/* One client's socket: reading messages off it, sending frames to it, and the states between accept and close. */
#include "client.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "log.h"
#include "watch.h"

#define FLUSH_IOVECS 256      /* pieces that one system call sends at most */
#define FLUSH_BUDGET 1048576U /* bytes for one client in one loop turn: the others come next */
#define INPUT_FIRST                                                                                                    \
    4096U /* the first room for an unfinished message; it grows as bytes come, not as they are promised */

static struct log_limit bad_input = { .kind = "clients: malformed input" };
static struct log_limit failures = { .kind = "clients: connection failures" };

static void client_watch(struct client *client);

const char *client_state_name(enum client_state state)
{
    static const char *const names[] = { "admitting", "open", "finishing", "flushing", "gone" };
    return names[state];
}

const char *drop_reason_name(enum drop_reason reason)
{
    static const char *const names[] = { "slow", "closed", "large", "memory" };
    return names[reason];
}

static void client_subject(const struct client *client, char out[32])
{
    snprintf(out, 32, "client %u", client->index);
}

/* Every change of state passes here. */
static void client_enter(struct client *client, enum client_state state)
{
    client->state = state;
    if (state != CLIENT_GONE)
        client_watch(client);
}

static void count_dropped(struct client *client, enum drop_reason reason, uint64_t events)
{
    client->tally.dropped[reason] += events;
    client->host->totals->dropped[reason] += events;
}

/* ---- input ----------------------------------------------------------------------------------------------------- */

/* Drop the input buffer's front, and the buffer when it is empty: idle clients keep none. */
static void input_use(struct client *client, size_t used)
{
    client->in_start += used;
    if (client->in_start < client->in_end)
        return;
    free(client->in);
    client->in = NULL;
    client->in_start = client->in_end = client->in_room = 0;
}

/* Nothing more will come: by the peer's will (why NULL) or because the socket or the stream is broken. */
static void client_end_input(struct client *client, const char *why)
{
    char subject[32];
    client_subject(client, subject);
    if (why != NULL)
        log_limited(&failures, LEVEL_INFO, subject, "%s port %u: %s", client->address, client->port, why);
    client->input_over = true;
    if (client->state == CLIENT_OPEN)
        client_enter(client, CLIENT_FINISHING);
    client->host->ended(client);
}

/* The stream cannot be understood from offset at on: what was understood is still worked on, then the client is closed. */
static void client_reject_input(struct client *client, enum netstring_status status, uint64_t at, unsigned char byte)
{
    char subject[32];
    client_subject(client, subject);
    log_limited(&bad_input, LEVEL_WARNING, subject,
                "%s port %u: malformed netstring at byte %llu of its stream (0x%02x): %s (limit %zu bytes); closing it",
                client->address, client->port, (unsigned long long)at, byte, netstring_reason(status),
                client->max_message_bytes);
    input_use(client, client->in_end - client->in_start); /* done with, all of it: none of it counts as thrown away */
    client_end_input(client, NULL);
}

static bool client_offer(struct client *client, const char *bytes, size_t length)
{
    if (!client->host->message(client, bytes, length)) {
        client->held = true;
        return false;
    }
    client->tally.messages++;
    client->tally.message_bytes += length;
    client->host->totals->messages++;
    client->host->totals->message_bytes += length;
    return true;
}

/* Find messages in bytes and offer them, until one is not taken or none is whole. Returns the bytes done with. */
static size_t client_parse(struct client *client, const char *bytes, size_t length)
{
    if (client->out.framing == FRAMING_RAW)
        return length > 0 && client_offer(client, bytes, length) ? length : 0;
    size_t used = 0;
    while (used < length) {
        struct netstring frame;
        const enum netstring_status status =
            netstring_scan(bytes + used, length - used, client->max_message_bytes, &frame);
        if (status == NETSTRING_FRAME) {
            if (!client_offer(client, frame.payload, frame.length))
                break;
            used += frame.used;
            continue;
        }
        if (status == NETSTRING_MORE) {
            used += frame.used;
            client->in_need = frame.need;
            break;
        }
        client_reject_input(client, status, client->in_offset + used + frame.at, (unsigned char)bytes[used + frame.at]);
        return length;
    }
    return used;
}

/* Keep bytes that came into the scratch and are not used up. */
static bool input_keep(struct client *client, const char *bytes, size_t length)
{
    if (length == 0)
        return true;
    const size_t room = length > INPUT_FIRST ? length : INPUT_FIRST;
    client->in = malloc(room);
    if (client->in == NULL)
        return false;
    memcpy(client->in, bytes, length);
    client->in_start = 0;
    client->in_end = length;
    client->in_room = room;
    return true;
}

/* Make room behind the bytes that are kept: move them to the front, then double up to what the frame needs. */
static bool input_make_room(struct client *client)
{
    const size_t kept = client->in_end - client->in_start;
    if (client->in_start > 0) {
        memmove(client->in, client->in + client->in_start, kept);
        client->in_start = 0;
        client->in_end = kept;
    }
    if (client->in_room - kept >= INPUT_FIRST || (client->in_need > kept && client->in_room >= client->in_need))
        return true;
    size_t room = client->in_room * 2;
    if (client->in_need > kept && room > client->in_need + INPUT_FIRST)
        room = client->in_need + INPUT_FIRST;
    char *in = realloc(client->in, room);
    if (in == NULL)
        return false;
    client->in = in;
    client->in_room = room;
    return true;
}

/* Offer what is kept. */
static void client_parse_kept(struct client *client)
{
    const size_t used = client_parse(client, client->in + client->in_start, client->in_end - client->in_start);
    client->in_offset += used;
    input_use(client, used);
}

/* How many whole messages there are in bytes. */
static uint64_t input_count(const struct client *client, const char *bytes, size_t length)
{
    uint64_t messages = 0;
    size_t at = 0;
    struct netstring frame;
    if (client->out.framing == FRAMING_RAW)
        return length > 0;
    while (netstring_scan(bytes + at, length - at, client->max_message_bytes, &frame) == NETSTRING_FRAME) {
        messages++;
        at += frame.used;
    }
    return messages;
}

/* Count what is about to be thrown away. */
static void client_throw_away(struct client *client, const char *bytes, size_t length)
{
    const uint64_t messages = input_count(client, bytes, length);
    client->tally.messages_dropped += messages;
    client->host->totals->messages_dropped += messages;
}

static void client_parse_scratch(struct client *client, size_t length)
{
    const char *scratch = client->host->scratch;
    const size_t used = client_parse(client, scratch, length);
    client->in_offset += used;
    if (input_keep(client, scratch + used, length - used))
        return;
    client_throw_away(client, scratch + used, length - used);
    client->held = false; /* nothing is left to be offered again */
    client_end_input(client, "no memory for an unfinished message");
}

static void client_read(struct client *client)
{
    const bool kept = client->in != NULL;
    client->in_need = kept ? client->in_need : 0;
    if (kept && !input_make_room(client)) {
        client_end_input(client, "no memory for an unfinished message");
        return;
    }
    char *at = kept ? client->in + client->in_end : client->host->scratch;
    size_t room = kept ? client->in_room - client->in_end : CLIENT_SCRATCH;
    if (client->out.framing == FRAMING_RAW && room > client->max_message_bytes)
        room = client->max_message_bytes;
    const ssize_t n = client->transport->read(client->fd, at, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        const char *why = n < 0 ? strerror(errno) : kept ? "ended in the middle of a message" : NULL;
        input_use(client, client->in_end - client->in_start);
        client_end_input(client, why);
        return;
    }
    if (!kept) {
        client_parse_scratch(client, (size_t)n);
        return;
    }
    client->in_end += (size_t)n;
    client_parse_kept(client);
}

static void client_discard_input(struct client *client)
{
    if (client->in != NULL) {
        client_throw_away(client, client->in + client->in_start, client->in_end - client->in_start);
        input_use(client, client->in_end - client->in_start);
    }
    client->held = false;
    client->input_over = true;
}

void client_resume(struct client *client)
{
    if (client->state == CLIENT_ADMITTING)
        return;
    if (client->held) {
        client->held = false;
        client_parse_kept(client);
    }
    if (client->state == CLIENT_OPEN)
        client_watch(client);
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

/* Nothing more can be sent: drop what waits for that reason, and let what the client has sent be worked on. */
static void client_fail_output(struct client *client, enum drop_reason reason, const char *why)
{
    char subject[32];
    client_subject(client, subject);
    log_limited(&failures, LEVEL_INFO, subject, "%s port %u: %s", client->address, client->port, why);
    client->deaf = true;
    client->blocked = false;
    count_dropped(client, reason, outq_clear(&client->out));
    client->host->deaf(client);
}

void client_follow(struct client *client, struct run *run)
{
    outq_follow(&client->out, run);
}

/* What it was given by the run is kept as it is; if that can't be, an event may be torn, and only the end of the
 * connection tells the peer so. */
void client_unfollow(struct client *client)
{
    if (outq_leave(&client->out))
        return;
    shutdown(client->fd, SHUT_RDWR);
    client_fail_output(client, DROP_MEMORY, "no memory for its queue");
}

static enum drop_reason client_refusal(const struct client *client, size_t size)
{
    return size > client->out.limit                              ? DROP_LARGE
           : size > client->out.limit - outq_bytes(&client->out) ? DROP_SLOW
                                                                 : DROP_MEMORY;
}

void client_refuse(struct client *client, enum drop_reason reason)
{
    client->tally.relayed++;
    client->host->totals->relayed++;
    count_dropped(client, reason, 1);
}

/* Is there room in the queue? If need be, room is made by sending. */
static bool client_has_room(struct client *client, size_t size)
{
    while (size > client->out.limit - outq_bytes(&client->out)) {
        if (size > client->out.limit || client->state == CLIENT_ADMITTING || client->full || client->deaf)
            return false;
        client_flush(client);
    }
    return !client->deaf;
}

bool client_give(struct client *client, struct chunk *chunk, enum drop_reason *reason)
{
    if (client_has_room(client, chunk->used) && outq_push(&client->out, chunk)) {
        client->host->totals->relayed++;
        return true;
    }
    *reason = client->deaf ? DROP_CLOSED : client_refusal(client, chunk->used);
    client_refuse(client, *reason);
    return false;
}

bool client_can_take(struct client *client, size_t size, enum drop_reason *reason)
{
    if (client_has_room(client, size))
        return true;
    *reason = client->deaf ? DROP_CLOSED : client_refusal(client, size);
    client_refuse(client, *reason);
    return false;
}

const struct tally *client_tally(struct client *client)
{
    client->tally.relayed += outq_take_given(&client->out);
    return &client->tally;
}

static void client_count_sent(struct client *client, size_t bytes)
{
    struct tally *totals = client->host->totals;
    const uint64_t events = outq_sent(&client->out, bytes);
    client->tally.delivered += events;
    client->tally.delivered_bytes += bytes;
    totals->delivered += events;
    totals->delivered_bytes += bytes;
}

/* How many of the iovecs to send, so as not to go far over the budget. */
static int within_budget(const struct iovec *iov, int count, size_t budget)
{
    int n = 0;
    for (size_t bytes = 0; n < count && bytes < budget; n++)
        bytes += iov[n].iov_len;
    return n;
}

void client_flush(struct client *client)
{
    struct iovec iov[FLUSH_IOVECS];
    size_t budget = FLUSH_BUDGET;
    client->blocked = client->full = false;
    while (!outq_is_empty(&client->out) && budget > 0 && !client->deaf) {
        const int count = within_budget(iov, outq_gather(&client->out, iov, FLUSH_IOVECS), budget);
        const ssize_t n = client->transport->write(client->fd, iov, count);
        if (n < 0 && errno == EINTR)
            continue;
        client->full = n < 0 && errno == EAGAIN;
        if (client->full)
            break;
        if (n < 0) {
            client_fail_output(client, DROP_CLOSED, strerror(errno));
            break;
        }
        client_count_sent(client, (size_t)n);
        budget -= (size_t)n < budget ? (size_t)n : budget;
    }
    client->blocked = !outq_is_empty(&client->out);
    if (client->state == CLIENT_FLUSHING && !client->blocked)
        client_drop(client, DROP_CLOSED);
    else
        client_watch(client);
}

/* ---- the socket ------------------------------------------------------------------------------------------------ */

/* A client that waits to be admitted has hung up. If it has sent nothing it is forgotten; if it has, it waits on. */
static void client_hung_up(struct client *client)
{
    int unread = 0;
    client->input_over = ioctl(client->fd, FIONREAD, &unread) != 0 || unread == 0;
    if (client->input_over && client->in == NULL) {
        client->host->ended(client);
        if (client->state == CLIENT_ADMITTING)
            client_watch(client); /* for nothing any more */
        return;
    }
    uv_poll_stop(&client->poll); /* else it would be told so again and again */
    client->watched = 0;
}

static void client_on_poll(uv_poll_t *poll, int status, int events)
{
    struct client *client = poll->data;
    if (status < 0)
        client->watched = 0; /* libuv has stopped the handle */
    if (client->state == CLIENT_ADMITTING && (status < 0 || (events & UV_DISCONNECT) != 0)) {
        client_hung_up(client);
        return;
    }
    /* An error makes both a read and a write say what it is. */
    if (client->blocked && (status < 0 || (events & UV_WRITABLE) != 0))
        client_flush(client);
    if (client->state == CLIENT_OPEN && !client->held && (status < 0 || (events & UV_READABLE) != 0))
        client_read(client);
    if (client->state != CLIENT_GONE)
        client_watch(client);
}

/* Wait for just what the state allows. */
static void client_watch(struct client *client)
{
    int events = 0;
    if (client->state == CLIENT_OPEN && !client->held && !client->input_over)
        events |= UV_READABLE;
    if (client->state == CLIENT_ADMITTING && !client->input_over)
        events |= UV_DISCONNECT;
    if (client->blocked && client->state != CLIENT_ADMITTING)
        events |= UV_WRITABLE;
    if (events == client->watched)
        return; /* libuv would ask the kernel anew */
    client->watched = events;
    client->unwatched = false;
    if (events == 0) {
        uv_poll_stop(&client->poll);
        return;
    }
    if (watch_start(&client->poll, events, client_on_poll) == 0)
        return;
    client->watched = 0;
    client->unwatched = true;
}

void client_tick(struct client *client)
{
    if (client->unwatched && client->state != CLIENT_GONE)
        client_watch(client);
}

static void set_socket_options(int fd, const struct client_limits *limits)
{
    const int on = 1;
    const int idle = (int)limits->keepalive_idle_s;
    const int interval = (int)limits->keepalive_interval_s;
    const int probes = (int)limits->keepalive_probes;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (idle == 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

struct client *client_open(uv_loop_t *loop, int fd, const struct sockaddr_storage *peer,
                           const struct client_limits *limits, const struct client_host *host)
{
    struct client *client = calloc(1, sizeof(*client));
    if (client == NULL || !watch_has_room(loop, fd) || uv_poll_init(loop, &client->poll, fd) != 0) {
        free(client);
        transport_tcp.close(fd);
        return NULL;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    client->poll.data = client;
    client->fd = fd;
    client->host = host;
    client->transport = &transport_tcp;
    client->since_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    client->max_message_bytes = limits->max_message_bytes;
    address_host(peer, client->address);
    client->port = address_port(peer);
    outq_init(&client->out, limits->framing, limits->max_queued_bytes);
    set_socket_options(fd, limits);
    client_enter(client, CLIENT_ADMITTING);
    if (!client->unwatched)
        return client;
    client_discard(client);
    return NULL;
}

void client_admit(struct client *client)
{
    if (client->state == CLIENT_ADMITTING)
        client_enter(client, client->input_over ? CLIENT_FINISHING : CLIENT_OPEN);
}

void client_readmit(struct client *client)
{
    if (client->state == CLIENT_OPEN || client->state == CLIENT_FINISHING)
        client_enter(client, CLIENT_ADMITTING);
}

static void client_flush_out(struct client *client)
{
    if (outq_is_empty(&client->out) || client->deaf) {
        client_drop(client, DROP_CLOSED);
        return;
    }
    client->deadline_ms = uv_now(client->poll.loop) + CLIENT_LINGER_MS;
    client_enter(client, CLIENT_FLUSHING);
}

void client_finish(struct client *client)
{
    if (client->state == CLIENT_FLUSHING || client->state == CLIENT_GONE)
        return;
    client_discard_input(client);
    if (client->state == CLIENT_ADMITTING)
        count_dropped(client, DROP_CLOSED, outq_keep_begun(&client->out));
    client_flush_out(client);
}

void client_cut_off(struct client *client, enum drop_reason reason)
{
    if (client->state == CLIENT_FLUSHING || client->state == CLIENT_GONE)
        return;
    count_dropped(client, reason, outq_keep_begun(&client->out));
    client->input_over = true;
    client_flush_out(client);
}

static void client_on_poll_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    client->poll.data = NULL;
    if (client->host == NULL)
        free(client);
}

static void client_close_socket(struct client *client)
{
    client->blocked = false;
    client->input_over = true;
    client_enter(client, CLIENT_GONE);
    uv_close((uv_handle_t *)&client->poll, client_on_poll_closed);
    client->transport->close(client->fd);
    client->fd = -1;
}

void client_drop(struct client *client, enum drop_reason reason)
{
    if (client->state == CLIENT_GONE)
        return;
    count_dropped(client, reason, outq_clear(&client->out));
    client_close_socket(client);
    client->host->gone(client);
}

void client_discard(struct client *client)
{
    client_close_socket(client);
    client_free(client);
}

void client_free(struct client *client)
{
    client_discard_input(client);
    client->host = NULL;
    if (client->poll.data == NULL)
        free(client);
}
