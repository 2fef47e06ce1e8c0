/* The outlet: how lines leave evapid for a reader that may stop reading.
 *
 * Nothing here waits. Lines that the reader does not accept at once stay in memory, up to OUTLET_ROOM bytes. Lines that
 * do not fit are counted. The descriptor may be shared with others, a shell for instance, so its flags stay unchanged:
 *
 *     a socket               send with MSG_DONTWAIT
 *     a pipe, a terminal     reopened through /proc/self/fd, with O_NONBLOCK for us alone; where that is not allowed
 *                            (another user's), written with RWF_NOWAIT, or when it polls writable
 *     a file                 write: the kernel stores it in memory, and a full disk is an error
 *
 * Each write to a pipe consists of whole lines and has at most PIPE_BUF bytes, so that lines of several processes do
 * not mix (pipe(7)). A file may accept a part of a line when its disk becomes full: later text then begins on a new
 * line. */
#ifndef EVAPID_OUTLET_H
#define EVAPID_OUTLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUTLET_ROOM 65536U

enum outlet_kind { OUTLET_FILE, OUTLET_SOCKET, OUTLET_OWN, OUTLET_SHARED };

struct outlet {
    enum outlet_kind kind;
    int fd;
    size_t used;     /* bytes that wait */
    uint64_t missed; /* lines that did not fit or could not be written, and are not reported yet */
    uint64_t told;   /* of the missed lines, those whose reports still wait */
    uint64_t tells;  /* how many reports wait */
    bool begun;      /* the last line was written in part only */
    bool cut;        /* its rest has been dropped: the next line begins with a newline */
    bool parted;     /* that newline is the first waiting byte */
    char bytes[OUTLET_ROOM];
};

/* Write lines to fd from now on, also those that wait. fd stays the caller's. Before the first call outlet is all
 * zero. */
void outlet_open(struct outlet *outlet, int fd);

/* Write a line. It ends with a newline. */
void outlet_put(struct outlet *outlet, const char *line, size_t length);

/* Write the line that reports how many were missed. False: it does not fit yet. */
bool outlet_tell(struct outlet *outlet, const char *line, size_t length);

/* Write as much as the reader accepts now. Returns the bytes written. */
size_t outlet_flush(struct outlet *outlet);

/* The end: write what waits for at most limit_ms, and close what outlet_open has opened. */
void outlet_close(struct outlet *outlet, unsigned limit_ms);

#endif
