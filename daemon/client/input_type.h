/* The data of a client's input; input.h says what is done with it. */
#ifndef EVAPID_INPUT_TYPE_H
#define EVAPID_INPUT_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes [start, end) are not yet a complete message, or are one that the host refused for now. */
struct client_input {
    char *bytes; /* NULL while there are none */
    size_t start, end, room;
    uint64_t offset;            /* bytes of the stream before start */
    size_t need;                /* length of the frame at start, 0: not known */
    size_t max_message_bytes;   /* limit of a message, for what is in bytes */
    size_t later_message_bytes; /* the same, once bytes is empty */
    uint32_t message_timeout_ms;
    uint64_t spent_ms; /* on reading the message at start, until since_ms */
    uint64_t since_ms; /* loop time since when it is being read; 0: it is not, or there is none */
    uint64_t read_ns;  /* when bytes were last read, by CLOCK_MONOTONIC: a held message was complete by then */
    bool held;         /* the host refused a message for now: don't read */
    bool over;         /* the peer has ended, or the socket failed: never read again */
};

#endif
