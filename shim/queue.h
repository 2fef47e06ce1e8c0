/* The queue: the ring by which every process of Kamailio reaches evapid, and the wake, a pair of sockets that tells
 * evapid to read it.
 *
 * It is made once, before Kamailio forks, and every process inherits it. Nothing here waits: a push copies its record to
 * the place that it has claimed, and wakes evapid if it sleeps. A push works with and without an evapid; the records wait in
 * the ring. */
#ifndef EVAPI_QUEUE_H
#define EVAPI_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "evapid/lane.h"
#include "evapid/presence.h"

/* Make the queue with room for capacity bytes of records: a power of two from EVAPID_RING_MIN to EVAPID_RING_MAX.
 * Returns NULL, or the step that failed, with its errno set. */
const char *queue_make(size_t capacity);

/* Call nothing else here before it is made. */
bool queue_is_made(void);

/* The largest payload of a record, in bytes. */
size_t queue_payload_max(void);

size_t queue_capacity(void);

/* Append a record, as ring_push does, and wake evapid if it sleeps. */
enum ring_push queue_push(struct ring_record record, const char *tag, size_t tag_length, const char *payload,
                          size_t payload_length);

/* Append a record without waking evapid; then wake it. */
enum ring_push queue_put(struct ring_record record, const char *tag, size_t tag_length, const char *payload,
                         size_t payload_length);
void queue_wake(void);

/* Close the holes that processes have left which were killed in the middle of a push, if evapid waits at one. */
void queue_mend(void);

/* Does evapid wait for a push that has not ended? Then every other one waits to be read. */
bool queue_waits_at_hole(void);

/* Would the push of an event succeed now? Answers as queue_push does, and counts a refusal. A yes is no promise: other
 * processes push too. */
enum ring_push queue_probe(size_t tag_length, size_t payload_length);

/* Take a push that found no room out of the count of losses: the caller will try it again. */
void queue_forgive(void);

/* What evapid publishes about its clients. */
struct presence *queue_presence(void);

/* The ring's header, for reading what either side has written there. */
const struct ring_header *queue_ring(void);

/* Bytes that wait in the queue now. */
size_t queue_used(void);

/* Note that this worker begins the route of the frame with this sequence number. 0: it has begun none yet. */
void queue_started(unsigned worker, uint64_t sequence);

/* Count how long the message waited whose route this worker begins. read_ns: when evapid had read it. */
void queue_note_start(unsigned worker, uint64_t read_ns);

/* The sequence number up to which evapid wants to be woken when this worker has finished. Read it after queue_put:
 * evapid looks into the queue after it has changed this number. */
uint64_t queue_awaited(unsigned worker);

/* What a worker passes to evapid when it attaches: the ring's memfd, and evapid's end of the wake. */
enum { QUEUE_RING_FD, QUEUE_WAKE_FD, QUEUE_FDS };
const int *queue_fds(void);

/* True once for each notice, for the first process that asks. */
enum queue_notice { QUEUE_NOTICE_ASSIGNED };
bool queue_first_notice(enum queue_notice notice);

/* True if the last text that any process gave here was another one. Keeps several workers from logging the same
 * text. */
bool queue_first_to_say(const char *text, size_t length);

#endif
