/* The outlet: how lines leave evapid for a reader that may stop reading.
 *
 * Nothing here waits. Lines that the reader does not take at once stay in memory, up to OUTLET_ROOM bytes; lines that do not
 * fit are counted. The descriptor may be shared with others, a shell for instance, so its flags are left as they are:
 *
 *     a socket               send with MSG_DONTWAIT
 *     a pipe, a terminal     opened once more by /proc/self/fd, with O_NONBLOCK for us alone; or, where that is not
 *                            allowed (another user's), written to with RWF_NOWAIT, or when it polls writable
 *     a file                 write: the kernel takes it into its memory, and a full disk is an error
 *
 * A piece that is written to a pipe consists of whole lines and is at most PIPE_BUF bytes long, so that lines of several
 * processes do not mix (pipe(7)). A file takes a part of a line when its disk becomes full: what is written later begins on a line
 * of its own. */
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
    uint64_t missed; /* lines that did not fit, or could not be written, and have not been told of */
    uint64_t told;   /* of those in lines that tell of them and wait themselves */
    uint64_t tells;  /* these lines */
    bool begun;      /* of the line that was written last a part is missing */
    bool cut;        /* and it has been dropped: the next one begins with a newline */
    bool parted;     /* that newline is the first byte that waits */
    char bytes[OUTLET_ROOM];
};

/* Lines go to fd from here on, which stays the caller's. What waits is for it. The first time, outlet is all zero. */
void outlet_open(struct outlet *outlet, int fd);

/* Write a line, which ends with a newline. */
void outlet_put(struct outlet *outlet, const char *line, size_t length);

/* Write the line that tells how many were missed. False: it does not fit yet. */
bool outlet_tell(struct outlet *outlet, const char *line, size_t length);

/* Write as much as the reader takes now. Returns the bytes of it. */
size_t outlet_flush(struct outlet *outlet);

/* The end: write what waits, for so long at most, and close what outlet_open has opened. */
void outlet_close(struct outlet *outlet, unsigned limit_ms);

#endif
