/* What evapid says to the service manager, by the socket that NOTIFY_SOCKET names (sd_notify(3) has the form of it).
 *
 * Nothing here waits, but for notify_settle. What the service manager does not take now waits in memory, in its order, and
 * does not grow without end: to keep a descriptor and to forget it before the service manager has heard of it cancel each
 * other, of its own life evapid remembers the last NOTIFY_STATES words, and one WATCHDOG=1 is as good as many. Without a
 * service manager all of it does nothing. */
#ifndef EVAPID_NOTIFY_H
#define EVAPID_NOTIFY_H

#include <stdbool.h>

#define NOTIFY_STATES 16U

/* Look for the socket, before anything is said. Returns whether there is one. */
bool notify_open(void);

/* The end: nothing more is said. */
void notify_close(void);

/* Say how evapid is: READY=1, STATUS=... */
__attribute__((format(printf, 1, 2))) void notify_state(const char *format, ...);

/* Say that it lives: WATCHDOG=1. */
void notify_alive(void);

/* Have the service manager keep a copy of the descriptor under that name, or let go of it. The descriptor stays open until
 * notify_forget. False: there is no memory to say so. */
bool notify_keep(int fd, const char *name);
void notify_forget(const char *name);

/* Say what waits, as far as it is taken. True: some of it was, and not all, so that it is worth to ask again soon. */
bool notify_flush(void);

/* Wait until the service manager has done all that it was told, for so long at most: for the time before the loop runs, and
 * for the end. Descriptors that it has not taken by then are named in the log. */
void notify_settle(unsigned limit_ms);

#endif
