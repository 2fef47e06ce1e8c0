/* The queue: the ring by which every process of Kamailio reaches evapid, and the wake, a pair of
 * sockets by which evapid is told to read it.
 *
 * It is made once, before Kamailio forks, and every process inherits it. Nothing here waits: a push copies its record
 * under the lane's lock, and wakes evapid when it sleeps. Whether an evapid is there doesn't matter to a
 * push; its records wait in the ring. */
#ifndef EVAPI_QUEUE_H
#define EVAPI_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "evapid/presence.h"
#include "evapid/ring.h"

/* Make the queue, with room for capacity bytes of records: a power of two from EVAPID_RING_MIN to EVAPID_RING_MAX.
 * Returns NULL, or which step failed, with its errno set. */
const char *queue_make(size_t capacity);

/* Nothing else here may be called before it is made. */
bool queue_is_made(void);

/* The largest payload of a record, in bytes. */
size_t queue_payload_max(void);

size_t queue_capacity(void);

/* Append a record, as ring_push does, and wake evapid if it sleeps. */
enum ring_push queue_push(struct ring_record record, const char *tag, size_t tag_length, const char *payload,
                          size_t payload_length);

/* Append a record without waking evapid; and wake it. */
enum ring_push queue_put(struct ring_record record, const char *tag, size_t tag_length, const char *payload,
                         size_t payload_length);
void queue_wake(void);

/* Would a push of an event be taken now? Answers as queue_push does, and counts a refusal; a yes is no promise, for other
 * processes push too. */
enum ring_push queue_probe(size_t tag_length, size_t payload_length);

/* A push that found no room is going to be tried again: it is no loss, so take it out of the count of those. */
void queue_forgive(void);

/* What evapid publishes about its clients. */
struct presence *queue_presence(void);

/* The ring's header, for who reads what either side has written there. */
const struct ring_header *queue_ring(void);

/* Bytes that wait in the queue now. */
size_t queue_used(void);

/* Say that this worker begins the route of the frame with that sequence number; 0: of none yet. */
void queue_started(unsigned worker, uint64_t sequence);

/* Count for how long the message waited whose route this worker begins: since evapid had read it. */
void queue_note_start(unsigned worker, uint64_t read_ns);

/* The sequence number up to which evapid wants to be woken when this worker has finished. Read behind queue_put: evapid
 * looks into the queue after it has changed this. */
uint64_t queue_awaited(unsigned worker);

/* What a worker hands to evapid when it attaches: the ring's memfd, and its end of the wake. */
enum { QUEUE_RING_FD, QUEUE_WAKE_FD, QUEUE_FDS };
const int *queue_fds(void);

/* True once, for the first process that asks of this notice. */
enum queue_notice { QUEUE_NOTICE_ASSIGNED };
bool queue_first_notice(enum queue_notice notice);

/* True for the first process that comes with this text after a process came with another one. Keeps workers that are
 * told the same from all logging it. */
bool queue_first_to_say(const char *text, size_t length);

#endif
