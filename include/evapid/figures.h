/* Figures: what evapid counts, for Kamailio's statistics.
 *
 * They lie in the ring's shared header. A process of Kamailio reads them without asking or waiting, even while evapid
 * is down: they then show evapid's last turn. Only evapid writes them. Each figure stands alone: a process that reads
 * two while evapid writes may see one old and one new value. They are the totals of evapid's status, and like those
 * they continue over hand-overs and kills. */
#ifndef EVAPID_FIGURES_H
#define EVAPID_FIGURES_H

#include <stdatomic.h>
#include <stdint.h>

struct figures {
    _Atomic uint64_t clients_accepted, clients_closed;
    _Atomic uint64_t events_relay, events_multicast, events_unicast, events_send; /* from the ring, or published */
    _Atomic uint64_t events_no_receiver;                  /* events among these without a receiver */
    _Atomic uint64_t relayed, delivered, delivered_bytes; /* counted once for each receiver */
    _Atomic uint64_t queued, queued_memory;               /* now; queued_memory: bytes */
    _Atomic uint64_t dropped_slow, dropped_closed, dropped_large, dropped_memory, dropped_lost;
    _Atomic uint64_t messages, message_bytes, messages_delivered;
    _Atomic uint64_t messages_waiting; /* now */
    _Atomic uint64_t messages_dropped_closed, messages_dropped_memory, messages_dropped_lost;
    _Atomic uint64_t dropped_absent;
};

#endif
