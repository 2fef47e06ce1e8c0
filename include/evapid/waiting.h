/* How many events wait for each kept tag, for the script of the client that is about to get them.
 *
 * It lies in the ring's shared header. Only evapid writes it, in each turn of its loop. Each place holds one tag:
 * the upper half of the tag's hash (presence_hash), and the number of events. */
#ifndef EVAPID_WAITING_H
#define EVAPID_WAITING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define WAITING_PLACES 256U

struct waiting {
    _Atomic uint64_t places[WAITING_PLACES]; /* 0: free */
    _Atomic uint64_t crowded;                /* 1: more tags are kept than have places */
};

#define WAITING_HASH 0xffffffff00000000U

static inline void waiting_put(struct waiting *w, uint32_t place, uint64_t hash, uint64_t events)
{
    const uint64_t most = events < UINT32_MAX ? events : UINT32_MAX;
    atomic_store_explicit(&w->places[place], (hash & WAITING_HASH) | most, memory_order_relaxed);
}

/* Read how many events wait for the tag; 0 if it is not kept. False: it is not known. */
static inline bool waiting_get(const struct waiting *w, uint64_t hash, uint32_t *events)
{
    *events = 0;
    for (uint32_t i = 0; i < WAITING_PLACES; i++) {
        const uint64_t place = atomic_load_explicit(&w->places[i], memory_order_relaxed);
        if (place == 0 || (place & WAITING_HASH) != (hash & WAITING_HASH))
            continue;
        *events = (uint32_t)place;
        return true;
    }
    return atomic_load_explicit(&w->crowded, memory_order_relaxed) == 0;
}

#endif
