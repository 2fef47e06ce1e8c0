/* A client's input: the bytes that have come and are no message yet, or one that the host would not take.
 *
 * It owns struct client_input. Whole messages are found where the bytes were read to, and
 * offered to the host there; only what is left is kept, in a buffer that an idle client doesn't have. */
#ifndef EVAPID_INPUT_H
#define EVAPID_INPUT_H

#include <stdbool.h>

#include "client/client_type.h"

/* What has come of reading. over: nothing more will come, by the peer's will (why NULL) or because the socket or the stream is
 * broken. */
struct input_verdict {
    bool over;
    const char *why; /* until the next call of strerror */
};

/* Read once, and offer the messages that are whole then. */
struct input_verdict input_read(struct client *client);

/* Offer what was held to the host again. */
struct input_verdict input_offer_again(struct client *client);

/* Read no more. */
static inline void input_stop(struct client *client)
{
    struct client_input *input = &client->input;
    input->over = true;
}

/* Other limits hold from now on; but for a message that has begun the length that it began with. */
void input_set_limits(struct client *client, const struct client_limits *limits);

/* Let the clock of an unfinished message run while it is being read on, and stand still otherwise. */
void input_time(struct client *client);

/* Has an unfinished message taken longer than message_timeout_ms? */
bool input_is_late(const struct client *client);

/* It is: log that, and let go of it. The input is over. */
void input_end_late(struct client *client);

/* Throw away what is kept, count the messages in it as lost, and read no more. */
void input_discard(struct client *client);

/* Write it for a successor; read it back. False: it makes no sense, or there is no memory. */
void input_save(const struct client *client, struct state_out *out);
bool input_load(struct client *client, struct state_in *in);

#endif
