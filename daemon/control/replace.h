/* Taking over from a running evapid: the conversation on its control socket. docs/protocol.md has its bytes, and
 * docs/handover.md what happens when one of the two is killed on the way.
 *
 *     successor                                    the one that runs
 *     {"command": "replace"} ───────────────────▶   it stands still from before it answers
 *              ◀──── {"replace": {"pid": P, "descriptors": N}}, and N descriptors with their names
 *     ready    ──────────────────────────────────▶
 *              ◀────────────────────────────── go
 *     OFFERED becomes CLAIMED: this is the moment
 *     running  ──────────────────────────────────▶   it ends; the successor begins
 *
 * The word that says which of the two goes on lies in memory that both map, and is exchanged atomically: whatever is killed or
 * stopped, one of them goes on, and one only. The successor touches nothing of what it was given before it has said
 * "running". */
#ifndef EVAPID_REPLACE_H
#define EVAPID_REPLACE_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/holding.h"

#define REPLACE_MS 10000U /* for a step */

/* Whose it all is. The one that runs withdraws its offer when the successor fails or takes longer than REPLACE_MS. */
enum replace_offer { REPLACE_KEPT, REPLACE_OFFERED, REPLACE_CLAIMED };

typedef _Atomic uint32_t replace_word; /* an enum replace_offer */

/* The one that runs: give all holdings to who asks on fd. NULL: the successor goes on now; or why it does not. */
const char *replace_give(int fd, const struct holdings *holdings, replace_word *offer);

/* May who is at the other end of fd take over? NULL, or why not: only root and our own user may. */
const char *replace_permit(int fd);

/* The successor: ask at the control socket for everything. NULL with the connection in *fd, or why it is not given. */
const char *replace_ask(const char *path, struct holdings *holdings, int *fd);

/* The successor stands ready. NULL: the one that runs waits for it, or has died; or it goes on, and we must not. */
const char *replace_begin(int fd);

/* The successor begins, unless the other one goes on (not NULL). offer NULL: there is none. Closes fd. */
const char *replace_claim(int fd, replace_word *offer);

#endif
