/* Finding messages in the bytes that come. */
#include "client/input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/state.h"
#include "client/books.h"
#include "client/ledger.h"
#include "evapid/histogram.h"

/* The first buffer for an unfinished message. It grows as bytes come, not with the announced length. */
#define INPUT_FIRST 4096U

static const struct input_verdict goes_on = { .over = false };
static const struct input_verdict has_ended = { .over = true };

static struct log_limit bad_input = { .kind = "clients: malformed input" };

/* Is there an unfinished message that is being read? */
static bool input_is_awaited(const struct client *client)
{
    const struct client_input *input = &client->input;
    return input->bytes != NULL && client->state == CLIENT_OPEN && !input->held && !input->over;
}

void input_time(struct client *client)
{
    struct client_input *input = &client->input;
    const bool awaited = input_is_awaited(client);
    if (awaited == (input->since_ms != 0))
        return;
    const uint64_t now = uv_now(client->poll.loop);
    input->spent_ms += awaited ? 0 : now - input->since_ms;
    input->since_ms = awaited ? now : 0;
}

/* Remove the front of the input buffer, and the buffer if it is empty: idle clients have none. */
static void input_use(struct client *client, size_t used)
{
    struct client_input *input = &client->input;
    if (used > 0)
        input->spent_ms = input->since_ms = 0; /* after this, another message begins */
    input->start += used;
    if (input->start < input->end)
        return;
    free(input->bytes);
    input->bytes = NULL;
    input->start = input->end = input->room = 0;
    input->max_message_bytes = input->later_message_bytes;
}

#define BEGINNING 16U /* enough bytes to recognise what a client speaks */

/* Show the first bytes that came, including a NUL, at which text would end. */
static void show_beginning(const char *bytes, size_t length, char out[BEGINNING * 4 + 1])
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < length && i < BEGINNING; i++) {
        const unsigned char byte = (unsigned char)bytes[i];
        used += (size_t)snprintf(out + used, 5, byte >= 0x20 && byte < 0x7f ? "%c" : "\\x%02x", byte);
    }
}

/* The stream cannot be understood from offset on. What came before is still worked on; then the client is closed. bytes
 * begin at offset; there may be few. */
static void input_reject(struct client *client, enum netstring_status status, const struct netstring *frame,
                         const char *bytes, size_t length, uint64_t offset)
{
    const struct client_input *input = &client->input;
    char subject[CLIENT_SUBJECT];
    char beginning[BEGINNING * 4 + 1];
    client_subject(client, subject);
    offset += frame->at;
    show_beginning(bytes + frame->used, length - frame->used, beginning);
    log_limited(
        &bad_input, LEVEL_WARNING, subject,
        "%s %s %u: malformed netstring at byte %llu of its stream (0x%02x): %s (limit %zu bytes); it began with "
        "\"%s\"; closing it",
        client->address, remote_noun(&client->origin), client->port, (unsigned long long)offset,
        (unsigned char)bytes[frame->at], netstring_reason(status), input->max_message_bytes, beginning);
    input_use(client, input->end - input->start); /* drop all of it; it does not count as a lost message */
}

static bool input_offer(struct client *client, const char *bytes, size_t length)
{
    struct client_input *input = &client->input;
    if (!client->host->message(client, bytes, length)) {
        input->held = true;
        return false;
    }
    books_count_message(client, length);
    return true;
}

/* Find messages in bytes and offer them, until the host refuses one or none is complete. Returns the bytes used up.
 * Sets *verdict if this ends the input. */
static size_t input_parse(struct client *client, const char *bytes, size_t length, struct input_verdict *verdict)
{
    struct client_input *input = &client->input;
    if (client->out.framing == FRAMING_RAW)
        return length > 0 && input_offer(client, bytes, length) ? length : 0;
    size_t used = 0;
    while (used < length) {
        struct netstring frame;
        const enum netstring_status status =
            netstring_scan(bytes + used, length - used, input->max_message_bytes, &frame);
        if (status == NETSTRING_FRAME) {
            if (!input_offer(client, frame.payload, frame.length))
                break;
            used += frame.used;
            continue;
        }
        if (status == NETSTRING_MORE) {
            used += frame.used;
            input->need = frame.need;
            break;
        }
        input_reject(client, status, &frame, bytes + used, length - used, input->offset + used);
        *verdict = has_ended;
        return length;
    }
    return used;
}

/* Keep bytes in the scratch that are not used up. */
static bool input_keep(struct client *client, const char *bytes, size_t length)
{
    struct client_input *input = &client->input;
    if (length == 0)
        return true;
    const size_t room = length > INPUT_FIRST ? length : INPUT_FIRST;
    input->bytes = malloc(room);
    if (input->bytes == NULL)
        return false;
    memcpy(input->bytes, bytes, length);
    input->start = 0;
    input->end = length;
    input->room = room;
    input->spent_ms = input->since_ms = 0;
    return true;
}

/* Make room after the kept bytes: move them to the front, then double the buffer, up to what the frame needs. */
static bool input_make_room(struct client *client)
{
    struct client_input *input = &client->input;
    const size_t kept = input->end - input->start;
    if (input->start > 0) {
        memmove(input->bytes, input->bytes + input->start, kept);
        input->start = 0;
        input->end = kept;
    }
    if (input->room - kept >= INPUT_FIRST || (input->need > kept && input->room >= input->need))
        return true;
    size_t room = input->room * 2;
    if (input->need > kept && room > input->need + INPUT_FIRST)
        room = input->need + INPUT_FIRST;
    char *in = realloc(input->bytes, room);
    if (in == NULL)
        return false;
    input->bytes = in;
    input->room = room;
    return true;
}

/* Offer the kept bytes. */
static struct input_verdict input_parse_kept(struct client *client)
{
    struct client_input *input = &client->input;
    struct input_verdict verdict = goes_on;
    const size_t used = input_parse(client, input->bytes + input->start, input->end - input->start, &verdict);
    input->offset += used;
    input_use(client, used);
    return verdict;
}

static void input_lose(struct client *client, size_t length, enum message_loss reason)
{
    books_count_message(client, length);
    books_count_lost_message(client, reason);
}

/* Bytes that the host has not taken are about to be dropped: count the complete messages in them. */
static void input_lose_all(struct client *client, const char *bytes, size_t length, enum message_loss reason)
{
    const struct client_input *input = &client->input;
    struct netstring frame;
    if (client->out.framing == FRAMING_RAW) {
        if (length > 0)
            input_lose(client, length, reason);
        return;
    }
    while (netstring_scan(bytes, length, input->max_message_bytes, &frame) == NETSTRING_FRAME) {
        input_lose(client, frame.length, reason);
        bytes += frame.used;
        length -= frame.used;
    }
}

static struct input_verdict input_take_scratch(struct client *client, size_t length)
{
    struct client_input *input = &client->input;
    struct input_verdict verdict = goes_on;
    const char *scratch = client->host->scratch;
    const size_t used = input_parse(client, scratch, length, &verdict);
    input->offset += used;
    if (input_keep(client, scratch + used, length - used))
        return verdict;
    input_lose_all(client, scratch + used, length - used, LOSS_MEMORY);
    input->held = false;
    return (struct input_verdict){ .over = true, .why = "no memory to keep what has come" };
}

static struct input_verdict input_take(struct client *client)
{
    struct client_input *input = &client->input;
    const bool kept = input->bytes != NULL;
    input->need = kept ? input->need : 0;
    if (kept && !input_make_room(client))
        return (struct input_verdict){ .over = true, .why = "no memory for an unfinished message" };
    char *at = kept ? input->bytes + input->end : client->host->scratch;
    size_t room = kept ? input->room - input->end : CLIENT_SCRATCH;
    if (client->out.framing == FRAMING_RAW && room > input->max_message_bytes)
        room = input->max_message_bytes;
    const ssize_t n = client->stream.kind->read(&client->stream, at, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return goes_on;
    if (n <= 0) {
        const char *why = n < 0 ? strerror(errno) : kept ? "ended in the middle of a message" : NULL;
        input_use(client, input->end - input->start);
        return (struct input_verdict){ .over = true, .why = why };
    }
    input->read_ns = histogram_clock_ns(); /* one time for all messages of this read */
    if (!kept)
        return input_take_scratch(client, (size_t)n);
    input->end += (size_t)n;
    return input_parse_kept(client);
}

struct input_verdict input_read(struct client *client)
{
    const struct client_input *input = &client->input;
    ledger_note_input(client->slot, true);
    const struct input_verdict verdict = input_take(client);
    ledger_note_input(client->slot, input->bytes != NULL);
    return verdict;
}

bool input_is_late(const struct client *client)
{
    const struct client_input *input = &client->input;
    if (!input_is_awaited(client) || input->message_timeout_ms == 0)
        return false;
    const uint64_t now = uv_now(client->poll.loop);
    const uint64_t since = input->since_ms != 0 ? input->since_ms : now;
    return input->spent_ms + (now - since) >= input->message_timeout_ms;
}

void input_discard(struct client *client)
{
    struct client_input *input = &client->input;
    if (input->bytes != NULL) {
        input_lose_all(client, input->bytes + input->start, input->end - input->start, LOSS_CLOSED);
        input_use(client, input->end - input->start);
    }
    input->held = false;
    input->over = true;
}

struct input_verdict input_offer_again(struct client *client)
{
    struct client_input *input = &client->input;
    input->held = false;
    const struct input_verdict verdict = input_parse_kept(client);
    ledger_note_input(client->slot, input->bytes != NULL);
    return verdict;
}

void input_end_late(struct client *client)
{
    const struct client_input *input = &client->input;
    char subject[CLIENT_SUBJECT];
    client_subject(client, subject);
    log_limited(&bad_input, LEVEL_WARNING, subject,
                "%s %s %u: the message at byte %llu of its stream has not become whole in %u ms (%zu bytes of it have "
                "come); closing it",
                client->address, remote_noun(&client->origin), client->port, (unsigned long long)input->offset,
                input->message_timeout_ms, input->end - input->start);
    input_use(client, input->end - input->start);
}

void input_set_limits(struct client *client, const struct client_limits *limits)
{
    struct client_input *input = &client->input;
    input->later_message_bytes = limits->max_message_bytes;
    if (input->bytes == NULL)
        input->max_message_bytes = limits->max_message_bytes;
    input->message_timeout_ms = limits->message_timeout_ms;
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void input_save(const struct client *client, struct state_out *out)
{
    const struct client_input *input = &client->input;
    const uint64_t running_ms = input->since_ms != 0 ? uv_now(client->poll.loop) - input->since_ms : 0;
    state_put(out, "held", input->held);
    state_put(out, "over", input->over);
    state_put(out, "spent-ms", input->spent_ms + running_ms);
    state_put(out, "offset", input->offset);
    state_put(out, "read-ns", input->read_ns);
    state_put(out, "max-message-bytes", input->max_message_bytes);
    state_put_bytes(out, "bytes", input->bytes != NULL ? input->bytes + input->start : "", input->end - input->start);
}

bool input_load(struct client *client, struct state_in *in)
{
    struct client_input *input = &client->input;
    const bool held = state_get(in, "held", 0) == 1;
    const bool over = state_get(in, "over", 0) == 1;
    const uint64_t spent_ms = state_get(in, "spent-ms", 0);
    input->offset = state_get(in, "offset", 0);
    input->read_ns = state_get(in, "read-ns", 0);
    const uint64_t max_message_bytes = state_get(in, "max-message-bytes", input->max_message_bytes);
    const struct wire_text bytes = state_get_bytes(in, "bytes");
    if (in->at.failed || !input_keep(client, bytes.bytes, bytes.length))
        return state_fail(in);
    input->spent_ms = spent_ms;
    if (input->bytes != NULL)
        input->max_message_bytes =
            (size_t)(max_message_bytes < EVAPID_MESSAGE_MAX ? max_message_bytes : EVAPID_MESSAGE_MAX);
    input->held = held;
    input->over = over;
    return true;
}
