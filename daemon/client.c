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
#include <unistd.h>

#include "ledger.h"
#include "log.h"
#include "state.h"

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
    static const char *const names[] = { "slow", "closed", "large", "memory", "lost" };
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

void tally_add(struct tally *sum, const struct tally *tally)
{
    sum->relayed += tally->relayed;
    sum->delivered += tally->delivered;
    sum->delivered_bytes += tally->delivered_bytes;
    for (int reason = 0; reason < DROP_REASONS; reason++)
        sum->dropped[reason] += tally->dropped[reason];
    sum->messages += tally->messages;
    sum->message_bytes += tally->message_bytes;
    sum->messages_dropped += tally->messages_dropped;
}

static void count_dropped(struct client *client, enum drop_reason reason, uint64_t events)
{
    ledger_touch(client->host->ledger, client->slot);
    client->tally->dropped[reason] += events;
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
    client->tally->messages++;
    client->tally->message_bytes += length;
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

static void client_parse_scratch(struct client *client, size_t length)
{
    const char *scratch = client->host->scratch;
    const size_t used = client_parse(client, scratch, length);
    client->in_offset += used;
    if (!input_keep(client, scratch + used, length - used))
        client_end_input(client, "no memory for an unfinished message");
}

static void client_read_input(struct client *client)
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

static void client_read(struct client *client)
{
    client->slot->input_begun = true;
    client_read_input(client);
    client->slot->input_begun = client->in != NULL;
}

/* How many whole messages wait in what is kept: they are about to be thrown away. */
static uint64_t input_count(const struct client *client)
{
    uint64_t messages = 0;
    size_t at = client->in_start;
    struct netstring frame;
    if (client->out.framing == FRAMING_RAW)
        return client->in_start < client->in_end;
    while (netstring_scan(client->in + at, client->in_end - at, client->max_message_bytes, &frame) == NETSTRING_FRAME) {
        messages++;
        at += frame.used;
    }
    return messages;
}

static void client_discard_input(struct client *client)
{
    if (client->in != NULL) {
        const uint64_t messages = input_count(client);
        client->tally->messages_dropped += messages;
        client->host->totals->messages_dropped += messages;
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
        client->slot->input_begun = client->in != NULL;
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

/* Bring what it was given into the books, and into the ledger where the run has them from. */
static void client_note_given(struct client *client)
{
    ledger_touch(client->host->ledger, client->slot);
    client->tally->relayed += outq_take_given(&client->out);
    client->slot->run_since = client->out.since;
    client->slot->follows = client->out.run != NULL;
}

void client_follow(struct client *client, struct run *run)
{
    outq_follow(&client->out, run);
    client_note_given(client);
}

/* What it was given by the run is kept as it is; if that can't be, an event may be torn, and only the end of the
 * connection tells the peer so. */
void client_unfollow(struct client *client)
{
    const bool left = outq_leave(&client->out);
    client_note_given(client);
    if (left)
        return;
    shutdown(client->fd, SHUT_RDWR);
    client_fail_output(client, DROP_MEMORY, "no memory for its queue");
}

static enum drop_reason client_refusal(const struct client *client, size_t size)
{
    return size > client->out.limit ? DROP_LARGE : size > outq_room(&client->out) ? DROP_SLOW : DROP_MEMORY;
}

void client_refuse(struct client *client, enum drop_reason reason)
{
    ledger_touch(client->host->ledger, client->slot);
    client->tally->relayed++;
    client->host->totals->relayed++;
    count_dropped(client, reason, 1);
}

/* Is there room in the queue? If need be, room is made by sending. */
static bool client_has_room(struct client *client, size_t size)
{
    while (size > outq_room(&client->out)) {
        if (size > client->out.limit || client->state == CLIENT_ADMITTING || client->full || client->deaf)
            return false;
        client->host->sends(client);
        client_flush(client);
    }
    return !client->deaf;
}

bool client_give(struct client *client, struct chunk *chunk, enum drop_reason *reason)
{
    if (client_has_room(client, chunk->used) && outq_push(&client->out, chunk)) {
        client->host->totals->relayed++;
        client_note_given(client);
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
    client_note_given(client);
    return client->tally;
}

static void client_count_sent(struct client *client, size_t bytes)
{
    struct tally *totals = client->host->totals;
    client->slot->output_begun = true; /* should we be killed before all is noted */
    const uint64_t events = outq_sent(&client->out, bytes);
    client->tally->delivered += events;
    client->tally->delivered_bytes += bytes;
    totals->delivered += events;
    totals->delivered_bytes += bytes;
    client->slot->output_begun = outq_is_begun(&client->out);
    client->slot->offered = 0;
}

/* Should we be killed while the kernel takes what is offered: what it has taken is known by the stream's position, and if
 * that is all there was, it was whole events. */
static void client_note_offered(struct client *client, const struct iovec *iov, int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    client->slot->offered = bytes == outq_bytes(&client->out) ? client->tally->delivered_bytes + bytes : 0;
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
        client_note_offered(client, iov, count);
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
    if (events == 0)
        uv_poll_stop(&client->poll);
    else
        uv_poll_start(&client->poll, events, client_on_poll);
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

/* A client on fd; the rest of it is the caller's to fill in. NULL: there is no memory, or the socket is of no use. */
static struct client *client_new(uv_loop_t *loop, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                                 const struct client_host *host)
{
    struct client *client = calloc(1, sizeof(*client));
    if (client == NULL || (fd >= 0 && uv_poll_init(loop, &client->poll, fd) != 0)) {
        free(client);
        return NULL;
    }
    client->poll.data = fd >= 0 ? client : NULL;
    client->poll.loop = loop;
    client->fd = fd;
    client->index = slot->index;
    client->slot = slot;
    client->tally = &slot->tally;
    client->host = host;
    client->transport = &transport_tcp;
    client->max_message_bytes = limits->max_message_bytes;
    return client;
}

struct client *client_open(uv_loop_t *loop, int fd, uint32_t index, const struct sockaddr_storage *peer,
                           const struct client_limits *limits, const struct client_host *host)
{
    struct ledger_slot *slot = ledger_take(host->ledger, index);
    struct client *client = slot != NULL ? client_new(loop, fd, slot, limits, host) : NULL;
    if (client == NULL) {
        if (slot != NULL)
            ledger_release(host->ledger, slot);
        transport_tcp.close(fd);
        return NULL;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    client->since_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    address_host(peer, client->address);
    client->port = address_port(peer);
    outq_init(&client->out, limits->framing, limits->max_queued_bytes);
    set_socket_options(fd, limits);
    client->slot->framing = limits->framing;
    client->slot->since_ms = client->since_ms;
    client->slot->port = client->port;
    client->slot->origin = client->transport->position(fd);
    client->slot->cookie = client->transport->cookie(fd);
    memcpy(client->slot->address, client->address, sizeof(client->address));
    client_enter(client, CLIENT_ADMITTING);
    return client;
}

struct client *client_adopt(uv_loop_t *loop, int fd, struct ledger_slot *slot, const struct client_limits *limits,
                            const struct client_host *host)
{
    struct client *client = client_new(loop, fd, slot, limits, host);
    if (client == NULL) {
        if (fd >= 0)
            close(fd); /* without a word to the peer: somebody else may have it, too */
        return NULL;
    }
    client->since_ms = slot->since_ms;
    client->port = slot->port;
    memcpy(client->address, slot->address, sizeof(client->address));
    client->address[sizeof(client->address) - 1] = '\0';
    outq_init(&client->out, slot->framing, limits->max_queued_bytes);
    client->state = CLIENT_GONE;
    if (fd >= 0)
        client_enter(client, CLIENT_ADMITTING);
    return client;
}

void client_admit(struct client *client)
{
    if (client->state == CLIENT_ADMITTING)
        client_enter(client, client->input_over ? CLIENT_FINISHING : CLIENT_OPEN);
    client->slot->admitted = true;
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

void client_abandon(struct client *client)
{
    client->host = NULL; /* freed when the poll is closed, which there is none of without a socket */
    if (client->fd >= 0) {
        uv_close((uv_handle_t *)&client->poll, client_on_poll_closed);
        close(client->fd);
    } else if (client->poll.data == NULL) {
        free(client);
    }
}

void client_free(struct client *client)
{
    client_discard_input(client);
    ledger_release(client->host->ledger, client->slot);
    client->host = NULL;
    if (client->poll.data == NULL)
        free(client);
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

enum { SAVED_HELD = 1, SAVED_INPUT_OVER = 2, SAVED_BLOCKED = 4, SAVED_DEAF = 8 };

void client_save(struct client *client, struct state_out *out)
{
    client_note_given(client);
    const uint64_t now_ms = uv_now(client->poll.loop);
    state_put(out, (uint64_t)client->state, 1);
    state_put(out,
              (client->held ? SAVED_HELD : 0U) | (client->input_over ? SAVED_INPUT_OVER : 0U) |
                  (client->blocked ? SAVED_BLOCKED : 0U) | (client->deaf ? SAVED_DEAF : 0U),
              1);
    state_put(out, client->deadline_ms > now_ms ? client->deadline_ms - now_ms : 0, 8);
    state_put(out, client->in_offset, 8);
    state_put_bytes(out, client->in != NULL ? client->in + client->in_start : "", client->in_end - client->in_start);
    outq_save(&client->out, out);
}

/* Its socket was not handed over: nothing more comes or goes. */
static void client_lose(struct client *client)
{
    client->input_over = true;
    client->blocked = false;
    client->out.followed = false;
    count_dropped(client, DROP_LOST, outq_clear(&client->out));
    const struct tally *tally = client->tally; /* what the run had for it, too */
    count_dropped(client, DROP_LOST, tally->relayed - tally->delivered - tally_dropped(tally));
}

bool client_load(struct client *client, struct state_in *in, bool *lost)
{
    const uint64_t state = state_take(in, 1);
    const uint64_t flags = state_take(in, 1);
    client->deadline_ms = uv_now(client->poll.loop) + state_take(in, 8);
    client->in_offset = state_take(in, 8);
    const struct wire_text input = state_take_bytes(in);
    if (state > CLIENT_GONE || (state == CLIENT_GONE && client->fd >= 0) || in->at.failed)
        return state_fail(in);
    if (!input_keep(client, input.bytes, input.length) || !outq_load(&client->out, in))
        return state_fail(in);
    client->held = (flags & SAVED_HELD) != 0;
    client->input_over = (flags & SAVED_INPUT_OVER) != 0;
    client->blocked = (flags & SAVED_BLOCKED) != 0;
    client->deaf = (flags & SAVED_DEAF) != 0;
    *lost = client->fd < 0 && state != CLIENT_GONE;
    if (*lost)
        client_lose(client);
    else if (client->fd >= 0)
        client_enter(client, (enum client_state)state);
    return true;
}
