/* A client's input: bytes that have come, but are not yet a message, or are a message that the host refused for now.
 *
 * It owns struct client_input. Complete messages are offered to the host where the read put them. Only the rest is
 * kept, in a buffer that an idle client does not have. */
#ifndef EVAPID_INPUT_H
#define EVAPID_INPUT_H

#include <stdbool.h>

#include "client/client_type.h"

/* The outcome of reading. over: nothing more will come, because the peer ended it (why NULL), or because the socket or
 * the stream is broken. */
struct input_verdict {
    bool over;
    const char *why; /* until the next call of strerror */
};

/* Read once, and offer the messages that are complete. */
struct input_verdict input_read(struct client *client);

/* Offer the held messages to the host again. */
struct input_verdict input_offer_again(struct client *client);

/* Read no more. */
static inline void input_stop(struct client *client)
{
    struct client_input *input = &client->input;
    input->over = true;
}

/* Apply other limits. A message that has begun keeps the maximum length with which it began. */
void input_set_limits(struct client *client, const struct client_limits *limits);

/* Run the clock of an unfinished message while it is being read; stop it otherwise. */
void input_time(struct client *client);

/* Has an unfinished message taken longer than message_timeout_ms? */
bool input_is_late(const struct client *client);

/* It has: log it, and drop the message. The input is over. */
void input_end_late(struct client *client);

/* Drop the kept bytes, count the messages in them as lost, and read no more. */
void input_discard(struct client *client);

/* Write it for a successor, and read it back. False: the state is invalid, or memory ran out. */
void input_save(const struct client *client, struct state_out *out);
bool input_load(struct client *client, struct state_in *in);

#endif
