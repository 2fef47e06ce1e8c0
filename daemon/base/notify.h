/* What evapid tells the service manager through the socket in NOTIFY_SOCKET (sd_notify(3) describes the form).
 *
 * Only notify_drain waits. What the service manager does not accept now stays in memory, in order, and cannot grow
 * without end: keeping and forgetting a descriptor cancel each other while both wait; of its states evapid remembers
 * the last NOTIFY_STATES; and at most one WATCHDOG=1 waits. Without a service manager nothing here has an effect. */
#ifndef EVAPID_NOTIFY_H
#define EVAPID_NOTIFY_H

#include <stdbool.h>

#define NOTIFY_STATES 16U

/* Find the socket. Call it before anything else here. Returns whether there is one. */
bool notify_open(void);

/* The end: nothing more is sent. */
void notify_close(void);

/* Report evapid's state: READY=1, STATUS=... */
__attribute__((format(printf, 1, 2))) void notify_state(const char *format, ...);

/* Report that evapid lives: WATCHDOG=1. */
void notify_alive(void);

/* Let the service manager keep a copy of the descriptor under this name, or drop it. The descriptor stays open until
 * notify_forget. False: memory is short. */
bool notify_keep(int fd, const char *name);
void notify_forget(const char *name);

/* Send what waits, as much as the service manager accepts. True: it accepted some but not all, so try again soon. */
bool notify_flush(void);

/* Wait, for at most limit_ms, until the service manager has done everything it was told. For the time before the loop
 * runs, and for the end. The log names the descriptors that it has not accepted by then. */
void notify_drain(unsigned limit_ms);

#endif
