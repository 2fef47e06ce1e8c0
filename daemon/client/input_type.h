/* What is known of a client's input; input.h says what is done with it. */
#ifndef EVAPID_INPUT_TYPE_H
#define EVAPID_INPUT_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes [start, end) are no finished message yet, or one that the host would not take. */
struct client_input {
    char *bytes; /* NULL while there are none */
    size_t start, end, room;
    uint64_t offset;            /* bytes of the stream before start */
    size_t need;                /* bytes that the frame at start will have, 0: not known */
    size_t max_message_bytes;   /* that a message may have, and those in bytes could when they came */
    size_t later_message_bytes; /* the same for all that come when nothing is in bytes any more */
    uint32_t message_timeout_ms;
    uint64_t spent_ms; /* on reading the message at start, until since_ms */
    uint64_t since_ms; /* loop time since when it is being read; 0: it is not, or there is none */
    uint64_t read_ns;  /* when bytes were last read, by CLOCK_MONOTONIC: what is held was whole by then */
    bool held;         /* the host would not take a message: no reading */
    bool over;         /* the peer has ended, or the socket failed: no reading any more */
};

#endif
