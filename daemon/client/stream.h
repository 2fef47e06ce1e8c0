/* A client's stream: how bytes enter and leave its connection.
 *
 *     input, output    messages and events, framed
 *          │
 *        stream        kind: how bytes travel; the rest of the struct: what must be known about that
 *          │
 *        socket
 *
 * Nothing above it knows its kind. The rules for a kind, also for one that wraps what it carries:
 *
 * - read returns only what belongs to the client's input, already unwrapped. If nothing of that has come, it fails with
 *   EAGAIN. It returns 0 at the end of the input.
 * - write returns how many bytes of the iovecs have been accepted, without what the kind adds. A kind that has accepted a
 *   byte sends it: the next write first sends what is left of the last one.
 * - What a kind must know to go on with a half-sent or half-read unit is part of struct stream, and is saved. */
#ifndef EVAPID_STREAM_H
#define EVAPID_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct state_in;
struct state_out;
struct stream;

/* read and write return what read(2) and writev(2) return on a non-blocking socket: bytes, 0 at the end of the input,
 * or -1 with errno. close closes the socket. begin sets a new connection's options. position: how many bytes the kernel
 * has ever accepted; NULL: it does not tell. probe sets TCP's keepalive; NULL: there is no such thing, because the kernel
 * tells at once that a peer has gone. */
struct stream_kind {
    const char *name; /* as shown in the status, and as saved */
    ssize_t (*read)(struct stream *stream, void *bytes, size_t room);
    ssize_t (*write)(struct stream *stream, const struct iovec *iov, int count);
    void (*close)(struct stream *stream);
    void (*begin)(struct stream *stream);
    uint64_t (*position)(const struct stream *stream);
    void (*probe)(const struct stream *stream);
};

/* Seconds of silence before the first probe (0: none is sent), seconds between probes, and probes without an answer
 * that end the connection. */
struct stream_keepalive {
    unsigned idle_s, interval_s, probes;
};

struct stream {
    const struct stream_kind *kind;
    int fd;                            /* -1: closed */
    struct stream_keepalive keepalive; /* of its socket; idle_s UINT_MAX: unknown */
};

extern const struct stream_kind stream_tcp, stream_unix;

/* The stream of a connected socket, whose kind follows from it; -1: a stream that is closed. */
struct stream stream_of(int fd);

/* A connection has just been accepted: set its options. */
static inline void stream_begin(struct stream *stream)
{
    if (stream->kind->begin != NULL)
        stream->kind->begin(stream);
}

/* Probe a silent peer like this from now on. */
void stream_set_keepalive(struct stream *stream, struct stream_keepalive keepalive);

/* Does the kernel tell how many bytes it has ever accepted to send? How many: 0 if it does not. */
static inline bool stream_has_position(const struct stream *stream)
{
    return stream->kind->position != NULL;
}

uint64_t stream_position(const struct stream *stream);

/* A number that no other socket of this host has; 0: unknown. */
uint64_t stream_cookie(const struct stream *stream);

/* Has nothing come that is still unread? */
bool stream_is_quiet(const struct stream *stream);

/* Nothing more can be read or sent. The socket stays open. */
void stream_shut(struct stream *stream);

/* Close the connection. What was written is still delivered. */
void stream_close(struct stream *stream);

/* Close only this descriptor: another evapid may have the connection, too. */
void stream_abandon(struct stream *stream);

/* Write it for a successor; read it for a stream of the same socket. False: the state is invalid. */
void stream_save(const struct stream *stream, struct state_out *out);
bool stream_load(struct stream *stream, struct state_in *in);

#endif
