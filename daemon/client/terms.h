/* A client's terms: what a listener gives all of its clients, as configured. */
#ifndef EVAPID_TERMS_H
#define EVAPID_TERMS_H

#include <stddef.h>
#include <stdint.h>

#include "events/framing.h"

/* What happens to a client whose queue is full (pace.h). */
enum slow_policy {
    SLOW_DISCONNECT,  /* it is cut off */
    SLOW_DROP_NEWEST, /* it gets no more events until half of its queue is free */
    SLOW_DROP_OLDEST  /* the older half of its queue is dropped */
};

/* Which client of a tag gets a unicast (group.h). */
enum unicast_mode {
    UNICAST_FIRST,       /* the one that has had the tag longest, whatever waits for it */
    UNICAST_ROUND_ROBIN, /* one after the other */
    UNICAST_LEAST_QUEUED /* the one with the fewest queued bytes; among several, one after the other */
};

/* "first", "round-robin" or "least-queued". */
static inline const char *unicast_mode_name(enum unicast_mode mode)
{
    static const char *const names[] = { "first", "round-robin", "least-queued" };
    return names[mode];
}

/* What a listener gives its clients. */
struct client_limits {
    enum framing framing;
    size_t max_message_bytes, max_queued_bytes;
    enum slow_policy slow_policy;
    enum unicast_mode unicast_mode; /* of tags for which this listener decides (group.h) */
    uint32_t message_timeout_ms;    /* for a message to become complete, once it has begun; 0: none */
    uint32_t linger_ms;             /* for a FLUSHING client to read the rest of its queue */
    unsigned keepalive_idle_s, keepalive_interval_s, keepalive_probes;
    uint32_t admission_timeout_ms; /* for the first admission, while somebody could admit it; 0: for ever */
    uint32_t keep_absent_ms;       /* how long a tag is kept after its last client has gone (kept.h); 0: not at all */
};

#endif
