/* Taking over from a running evapid: the conversation on its control socket. docs/protocol.md has its bytes;
 * docs/handover.md says what happens when one of the two is killed on the way.
 *
 *     successor                                    the running one
 *     {"command": "replace"} ───────────────────▶   it stands still before it answers
 *              ◀──── {"replace": {"pid": P, "descriptors": N}}, and N descriptors with their names
 *     ready    ──────────────────────────────────▶
 *              ◀────────────────────────────── go
 *     OFFERED becomes CLAIMED: this is the moment
 *     running  ──────────────────────────────────▶   it ends; the successor begins
 *
 * The word that says which of the two goes on lies in memory that both map. It is exchanged atomically: whichever
 * process is killed or stopped, exactly one goes on. The successor uses nothing that it was given before it has sent
 * "running". */
#ifndef EVAPID_REPLACE_H
#define EVAPID_REPLACE_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/descriptors.h"

#define REPLACE_MS 10000U /* for each step */

/* Who owns everything. The running one withdraws its offer if the successor fails or takes longer than REPLACE_MS. */
enum replace_offer { REPLACE_KEPT, REPLACE_OFFERED, REPLACE_CLAIMED };

typedef _Atomic uint32_t replace_word; /* an enum replace_offer */

/* The running one: give all descriptors to the successor on fd. NULL: the successor goes on now. Else why it does not. */
const char *replace_give(int fd, const struct descriptors *descriptors, replace_word *offer);

/* May the process at the other end of fd take over? NULL, or why not: only root and our own user may. */
const char *replace_permit(int fd);

/* The successor: ask for everything at the control socket. NULL, with the connection in *fd; or why it is refused. */
const char *replace_ask(const char *path, struct descriptors *descriptors, int *fd);

/* The successor is ready. NULL: the running one waits for it, or has died. Else the running one goes on, and we must
 * not. */
const char *replace_begin(int fd);

/* The successor claims the offer. NULL: it begins. Else the other one goes on, also if offer is NULL (there is none).
 * Closes fd. */
const char *replace_claim(int fd, replace_word *offer);

#endif
