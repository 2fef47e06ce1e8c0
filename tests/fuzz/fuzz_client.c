/* Fuzzing a client's input: bytes come over a socket, cut at random places, and the host refuses a message now and
 * then. Whatever the cuts, the host gets exactly the messages that netstring_scan finds in the whole stream, in order.
 * A malformed stream ends once, after its last good message. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/client.h"
#include "client/ledger.h"
#include "events/waits.h"
#include "input.h"

static uv_loop_t loop;
static char scratch[CLIENT_SCRATCH];
static struct ledger ledger;
static struct tally totals;

/* What the host has received. */
static struct {
    char *bytes; /* the messages, one after the other */
    size_t length, room;
    size_t lengths[65536];
    size_t messages;
    unsigned take; /* how many messages it accepts before it refuses one */
    unsigned ended, gone;
} host;

static bool on_message(struct client *client, const char *bytes, size_t length)
{
    assert(client->state == CLIENT_OPEN || client->state == CLIENT_FINISHING);
    assert(length <= client->input.max_message_bytes && host.gone == 0);
    if (host.take == 0)
        return false;
    host.take--;
    assert(host.length + length <= host.room && host.messages < sizeof(host.lengths) / sizeof(*host.lengths));
    memcpy(host.bytes + host.length, bytes, length);
    host.length += length;
    host.lengths[host.messages++] = length;
    return true;
}

static void on_ended(struct client *client)
{
    assert(client->input.over);
    host.ended++;
}

static void on_failed(struct client *client)
{
    (void)client;
}

static void on_gone(struct client *client)
{
    assert(client->state == CLIENT_GONE);
    host.gone++;
}

static void on_commit(struct client *client)
{
    assert(client->state != CLIENT_GONE);
}

static void on_postpone(struct client *client)
{
    (void)client;
    assert(!"there is time without an end");
}

static struct slice polls = { .until_ns = UINT64_MAX };
static struct histogram histogram;
static struct waits waits = { .histogram = &histogram };

static const struct client_host client_host = { .message = on_message,
                                                .ended = on_ended,
                                                .failed = on_failed,
                                                .gone = on_gone,
                                                .commit = on_commit,
                                                .postpone = on_postpone,
                                                .polls = &polls,
                                                .ledger = &ledger,
                                                .totals = &totals,
                                                .waits = &waits,
                                                .scratch = scratch };

static struct client *open_client(struct input *in, int *peer)
{
    static const size_t limits[] = { 1, 5, 100, 4096, 5000, 65536, 1 << 20 };
    const struct sockaddr_storage address = { .ss_family = AF_INET };
    const struct remote remote = remote_of_address(&address);
    const struct client_limits client_limits = {
        .framing = input_below(in, 8) == 0 ? FRAMING_RAW : FRAMING_NETSTRING,
        .max_message_bytes = limits[input_below(in, sizeof(limits) / sizeof(*limits))],
        .max_queued_bytes = 65536,
    };
    int pair[2];
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    struct client *client = client_open(&loop, pair[0], 1, &remote, &client_limits, &client_host);
    assert(client != NULL);
    *peer = pair[1];
    client_admit(client);
    return client;
}

static void turns(int count)
{
    for (int i = 0; i < count; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
}

/* Let the host accept a few more messages, or announce the client again and admit it. */
static void bother(struct client *client, struct input *cuts)
{
    switch (input_below(cuts, 6)) {
    case 0: host.take = (unsigned)input_below(cuts, 8); break;
    case 1:
        host.take = 1 + (unsigned)input_below(cuts, 8);
        client_resume(client);
        break;
    case 2:
        client_readmit(client);
        turns(1);
        client_admit(client);
        break;
    default: break;
    }
}

/* Send the whole stream in pieces. */
static void send_stream(struct client *client, int peer, struct input *cuts, const uint8_t *stream, size_t length)
{
    for (size_t at = 0; at < length;) {
        const size_t cut = input_left(cuts) > 0 ? 1 + input_below(cuts, 300) : length - at;
        const size_t size = cut < length - at ? cut : length - at;
        const ssize_t n = send(peer, stream + at, size, MSG_NOSIGNAL);
        if (n > 0)
            at += (size_t)n;
        else
            host.take = UINT32_MAX; /* its buffer is full: the host must accept all */
        bother(client, cuts);
        turns(1);
        if (n < 0 && host.take == UINT32_MAX)
            client_resume(client);
        if (n < 0 && (errno != EAGAIN || client->state != CLIENT_OPEN))
            return;
    }
}

/* The host got the messages that a scan of the whole stream finds. */
static void check_messages(const struct client *client, const char *stream, size_t length)
{
    size_t messages = 0;
    size_t bytes = 0;
    size_t at = 0;
    struct netstring frame;
    while (netstring_scan(stream + at, length - at, client->input.max_message_bytes, &frame) == NETSTRING_FRAME) {
        assert(messages < host.messages && host.lengths[messages] == frame.length);
        assert(memcmp(host.bytes + bytes, frame.payload, frame.length) == 0);
        messages++;
        bytes += frame.length;
        at += frame.used;
    }
    assert(messages == host.messages && bytes == host.length);
}

static void check_raw(const char *stream, size_t length)
{
    assert(host.length == length && memcmp(host.bytes, stream, length) == 0);
}

/* Messages that the client keeps when it is closed are those that the host refused. They count as dropped. */
static void finish(struct client *client)
{
    const bool held = client_has_waiting(client);
    client_finish(client);
    turns(1);
    assert(host.gone == 1 && client->state == CLIENT_GONE && client->input.bytes == NULL);
    const uint64_t dropped = tally_messages_dropped(client->tally);
    assert(held || dropped == 0);
    assert(client->tally->messages == host.messages + dropped);
    assert(dropped > 0 || client->tally->message_bytes == host.length);
    client_free(client);
    turns(2);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct input in = input_of(bytes, length);
    if (loop.data == NULL) {
        assert(uv_loop_init(&loop) == 0 && ledger_open(&ledger) == NULL);
        loop.data = &loop;
    }
    memset(&host, 0, offsetof(__typeof__(host), lengths));
    host.messages = host.ended = host.gone = 0;
    host.take = UINT32_MAX;
    int peer = -1;
    struct client *client = open_client(&in, &peer);
    size_t cut_count = 0;
    const uint8_t *cut_bytes = input_take(&in, input_below(&in, 64), &cut_count);
    struct input cuts = input_of(cut_bytes, cut_count);
    char *stream = copy_of(in.at, input_left(&in));
    const size_t size = input_left(&in);
    host.room = size;
    host.bytes = copy_of(stream, size);
    const bool to_the_end = input_below(&cuts, 4) != 3;
    send_stream(client, peer, &cuts, (const uint8_t *)stream, size);
    shutdown(peer, SHUT_WR);
    turns(2);
    if (to_the_end) {
        host.take = UINT32_MAX;
        client_resume(client);
        for (size_t i = 0; i < size + 4 && host.ended == 0; i++)
            turns(1); /* a raw client reads no more at once than a message may have */
        assert(!client_has_waiting(client) && host.ended == 1 && client->state == CLIENT_FINISHING &&
               client->input.bytes == NULL);
        if (client->out.framing == FRAMING_RAW)
            check_raw(stream, size);
        else
            check_messages(client, stream, size);
    }
    finish(client);
    close(peer);
    free(host.bytes);
    free(stream);
    return 0;
}
