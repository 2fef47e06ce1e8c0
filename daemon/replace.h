/* Taking over from a running evapid: the conversation on its control socket. docs/protocol.md has its bytes.
 *
 *     successor                                    the one that runs
 *     {"command": "replace"} ───────────────────▶
 *              ◀──── {"replace": {"pid": P, "descriptors": N}}, and N descriptors with their names
 *     ready    ──────────────────────────────────▶   it stands still from before it answers
 *              ◀────────────────────────────── go    and ends; the successor begins
 *
 * Until "go" the one that runs can go on, and does so if the successor fails or takes longer than REPLACE_MS for a step. */
#ifndef EVAPID_REPLACE_H
#define EVAPID_REPLACE_H

#include "holding.h"

#define REPLACE_MS 10000U

/* The one that runs: give all holdings to who asks on fd. NULL: the successor goes on now; or why it does not. */
const char *replace_give(int fd, const struct holdings *holdings);

/* May who is at the other end of fd take over? NULL, or why not: only root and our own user may. */
const char *replace_permit(int fd);

/* The successor: ask at the control socket for everything. NULL with the connection in *fd, or why it is not given. */
const char *replace_ask(const char *path, struct holdings *holdings, int *fd);

/* The successor stands ready: NULL, and the other one has ended; or it goes on, and we must not. Closes fd. */
const char *replace_begin(int fd);

#endif
