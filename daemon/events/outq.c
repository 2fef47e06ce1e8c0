/* The output queue: a ring of pieces that grows and shrinks with its use, and a position in a run. */
#include "events/outq.h"

#include <stdlib.h>

#include "base/state.h"
#include "events/chunk_state.h"

#define ROOM_FIRST 8U      /* pieces */
#define ROOM_KEPT 64U      /* a larger ring is freed when it is empty: many clients are idle */
#define TRANSLATED_PART 3U /* framed anew, events and their ends take at most about so many times the bytes */
#define PIECE_SMALL 8U     /* a piece below this part of its chunk is small */

static size_t ring_memory; /* bytes of the rings of all queues */

size_t outq_memory(void)
{
    return ring_memory;
}

/* A full ring doubles. */
size_t outq_growth(uint32_t queues)
{
    return ring_memory + queues * ROOM_FIRST * sizeof(struct piece);
}

void outq_init(struct outq *q, enum framing framing, size_t limit)
{
    *q = (struct outq){ .framing = framing, .limit = limit };
}

void outq_set_limit(struct outq *q, size_t limit)
{
    q->limit = limit;
    if (q->run != NULL)
        run_review_at(q->run, 0); /* the run asks it at the next event */
}

/* ---- pieces ---------------------------------------------------------------------------------------------------- */

static struct piece *outq_piece(const struct outq *q, uint32_t i)
{
    return &q->pieces[(q->head + i) & (q->room - 1)];
}

static void outq_free_ring(struct outq *q)
{
    ring_memory -= q->room * sizeof(struct piece);
    free(q->pieces);
    q->pieces = NULL;
    q->room = 0;
    q->head = 0;
}

/* Replace the ring by one of this room, which is enough for all pieces. */
static bool outq_move_ring(struct outq *q, uint32_t room)
{
    struct piece *pieces = malloc(room * sizeof(struct piece));
    if (pieces == NULL)
        return false;
    for (uint32_t i = 0; i < q->count; i++)
        pieces[i] = *outq_piece(q, i);
    outq_free_ring(q);
    q->pieces = pieces;
    q->room = room;
    ring_memory += room * sizeof(struct piece);
    return true;
}

/* Make room for count more pieces. */
static bool outq_make_room(struct outq *q, uint32_t count)
{
    uint32_t room = q->room == 0 ? ROOM_FIRST : q->room;
    while (room - q->count < count)
        room *= 2;
    return room == q->room || outq_move_ring(q, room);
}

/* After pieces have gone: free a ring that is much too large, if there is memory for a smaller one. */
static void outq_shrink_ring(struct outq *q)
{
    uint32_t room = q->room;
    while (room > ROOM_KEPT && q->count <= room / 4)
        room /= 2;
    if (q->count == 0)
        outq_free_ring(q);
    else if (room < q->room)
        outq_move_ring(q, room);
}

/* There is room for it. */
static void outq_add_piece(struct outq *q, struct chunk *chunk, uint32_t from, uint32_t to)
{
    *outq_piece(q, q->count++) = (struct piece){ .chunk = chunk_ref(chunk), .from = from, .to = to };
    q->bytes += to - from;
}

static void outq_drop_piece(struct outq *q, uint32_t i)
{
    const struct piece *piece = outq_piece(q, i);
    q->bytes -= piece->to - piece->from;
    chunk_unref(piece->chunk);
}

/* Events of the piece that have not been sent completely. */
static uint32_t piece_events(const struct piece *piece)
{
    return chunk_events_before(piece->chunk, piece->to) - chunk_events_before(piece->chunk, piece->from);
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

static void outq_unpin(struct outq *q)
{
    if (q->pin != NULL)
        q->pin->pins--;
    q->pin = NULL;
}

/* The chunk with the next byte of the run to send; NULL: all has been sent. */
static struct chunk *outq_chunk(const struct outq *q)
{
    return q->run != NULL ? run_find(q->run, q->pin, q->byte) : NULL;
}

static uint32_t outq_offset(const struct outq *q, const struct chunk *chunk)
{
    return (uint32_t)(q->byte - chunk->first_byte);
}

static uint64_t run_events_before(const struct chunk *chunk, uint64_t position)
{
    return chunk->first_event + chunk_events_before(chunk, (uint32_t)(position - chunk->first_byte));
}

/* Events of the run that have not been sent completely. */
static uint64_t outq_run_events(const struct outq *q)
{
    const struct chunk *chunk = outq_chunk(q);
    return chunk != NULL ? q->run->events - run_events_before(chunk, q->byte) : 0;
}

void outq_follow(struct outq *q, struct run *run)
{
    q->run = run;
    q->byte = run->bytes;
    q->since = run->events;
    q->pin = NULL;
    run_join(run, outq_review_at(q));
}

static void outq_note_given(struct outq *q)
{
    if (q->run == NULL)
        return;
    q->given += q->run->events - q->since;
    q->since = q->run->events;
}

uint64_t outq_collect_given(struct outq *q)
{
    outq_note_given(q);
    const uint64_t given = q->given;
    q->given = 0;
    return given;
}

static void outq_end_following(struct outq *q)
{
    outq_note_given(q);
    outq_unpin(q);
    run_part(q->run);
    q->run = NULL;
}

/* Make pieces of the run's bytes for us, with room for this many more pieces, and move to the run's end. */
static bool outq_catch_up(struct outq *q, uint32_t more)
{
    uint32_t pieces = 0;
    struct chunk *const first = outq_chunk(q);
    for (const struct chunk *chunk = first; chunk != NULL; chunk = chunk->next)
        pieces++;
    if (pieces + more > 0 && !outq_make_room(q, pieces + more))
        return false;
    for (struct chunk *chunk = first; chunk != NULL; chunk = chunk->next)
        outq_add_piece(q, chunk, chunk == first ? outq_offset(q, chunk) : 0, chunk->used);
    outq_unpin(q);
    if (q->run != NULL)
        q->byte = q->run->bytes;
    return true;
}

/* Copy a small part of a chunk, because it would keep the whole chunk in memory: a client that is skipped now and then
 * by large events holds only a little of each. The copy has the whole of an event that was sent in part. If memory is
 * short, the piece stays as it is. */
static void piece_spare_chunk(struct piece *piece)
{
    if (piece->to - chunk_event_begin(piece->chunk, piece->from) >= piece->chunk->room / PIECE_SMALL)
        return;
    struct chunk *part = chunk_part(piece->chunk, &piece->from, &piece->to);
    if (part == NULL)
        return;
    chunk_unref(piece->chunk);
    piece->chunk = part;
}

bool outq_leave(struct outq *q)
{
    const uint32_t pieces = q->count;
    if (q->run == NULL)
        return true;
    if (!outq_catch_up(q, 0))
        return false;
    for (uint32_t i = pieces; i < q->count; i++)
        piece_spare_chunk(outq_piece(q, i));
    outq_end_following(q);
    return true;
}

void outq_pin(struct outq *q)
{
    struct chunk *chunk = outq_chunk(q);
    outq_unpin(q);
    q->pin = chunk;
    if (chunk != NULL)
        chunk->pins++;
}

/* Move forward in the run; nothing before this position is needed. */
static void outq_move_on(struct outq *q, uint64_t byte)
{
    q->byte = byte;
    if (q->pin != NULL)
        outq_pin(q);
}

/* ---- the whole queue ------------------------------------------------------------------------------------------- */

size_t outq_bytes(const struct outq *q)
{
    return q->bytes + (q->run != NULL ? (size_t)(q->run->bytes - q->byte) : 0);
}

uint64_t outq_events(const struct outq *q)
{
    uint64_t events = outq_run_events(q);
    for (uint32_t i = 0; i < q->count; i++)
        events += piece_events(outq_piece(q, i));
    return events;
}

uint64_t outq_clear(struct outq *q)
{
    const uint64_t left = outq_events(q);
    for (uint32_t i = 0; i < q->count; i++)
        outq_drop_piece(q, i);
    q->count = 0;
    outq_free_ring(q);
    if (q->run != NULL)
        outq_end_following(q);
    return left;
}

uint64_t outq_keep_begun(struct outq *q)
{
    const uint64_t left = outq_events(q);
    const struct piece *piece = q->count > 0 ? outq_piece(q, 0) : NULL;
    struct chunk *chunk = piece != NULL ? piece->chunk : outq_chunk(q);
    if (chunk == NULL)
        return outq_clear(q);
    const uint32_t from = piece != NULL ? piece->from : outq_offset(q, chunk);
    const uint32_t end = chunk_event_end(chunk, from);
    chunk_ref(chunk);
    outq_clear(q);
    const bool begun = end > from && outq_make_room(q, 1);
    if (begun)
        outq_add_piece(q, chunk, from, end);
    chunk_unref(chunk);
    return left - begun;
}

/* Unsent bytes of the piece's first event, if that was sent in part. */
static uint32_t piece_begun(const struct piece *piece)
{
    return chunk_event_end(piece->chunk, piece->from) - piece->from;
}

/* The start of the first whole event after at least this many waiting bytes of the run. */
static uint64_t outq_run_event(const struct outq *q, uint64_t bytes)
{
    const uint64_t position = q->byte + bytes;
    const struct chunk *chunk = run_find(q->run, q->pin, position);
    return chunk == NULL ? position
                         : chunk->first_byte + chunk_event_end(chunk, (uint32_t)(position - chunk->first_byte));
}

size_t outq_begun(const struct outq *q)
{
    if (q->count > 0)
        return piece_begun(outq_piece(q, 0));
    return q->run != NULL ? (size_t)(outq_run_event(q, 0) - q->byte) : 0;
}

/* Make the rest of the event that was sent in part a piece of its own, at the head. There must be such an event. False,
 * with nothing changed, if memory is short. */
static bool outq_part_begun(struct outq *q)
{
    if (!outq_make_room(q, 1))
        return false;
    if (q->count == 0) {
        struct chunk *chunk = outq_chunk(q);
        const uint32_t from = outq_offset(q, chunk);
        const uint32_t end = chunk_event_end(chunk, from);
        outq_add_piece(q, chunk, from, end);
        outq_move_on(q, chunk->first_byte + end);
        return true;
    }
    struct piece *first = outq_piece(q, 0);
    const uint32_t end = first->from + piece_begun(first);
    if (end == first->to)
        return true;
    const struct piece begun = { .chunk = chunk_ref(first->chunk), .from = first->from, .to = end };
    first->from = end;
    q->head = (q->head - 1) & (q->room - 1);
    q->count++;
    *outq_piece(q, 0) = begun;
    return true;
}

/* Drop whole events of the pieces from number first on, until at most keep bytes wait. */
static void outq_drop_pieces(struct outq *q, uint32_t first, size_t keep)
{
    uint32_t gone = 0;
    for (; first + gone < q->count && outq_bytes(q) > keep; gone++) {
        struct piece *piece = outq_piece(q, first + gone);
        const size_t excess = outq_bytes(q) - keep;
        const uint32_t to = excess >= piece->to - piece->from
                                ? piece->to
                                : chunk_event_end(piece->chunk, piece->from + (uint32_t)excess);
        if (to < piece->to) {
            q->bytes -= to - piece->from;
            piece->from = to;
            break;
        }
        outq_drop_piece(q, first + gone);
    }
    if (first > 0 && gone > 0)
        *outq_piece(q, gone) = *outq_piece(q, 0);
    q->head = (q->head + gone) & (q->room - 1);
    q->count -= gone;
}

uint64_t outq_drop_oldest(struct outq *q, size_t keep)
{
    const bool begun = outq_begun(q) > 0;
    if (outq_bytes(q) <= keep)
        return 0;
    const uint64_t events = outq_events(q);
    if (begun && !outq_part_begun(q))
        return 0;
    if (q->count > 0)
        outq_drop_pieces(q, begun, keep);
    if (q->run != NULL && outq_bytes(q) > keep) {
        const size_t excess = outq_bytes(q) - keep;
        const uint64_t waiting = q->run->bytes - q->byte;
        outq_move_on(q, excess < waiting ? outq_run_event(q, excess) : q->run->bytes);
    }
    for (uint32_t i = 0; i < q->count && i <= begun; i++)
        piece_spare_chunk(outq_piece(q, i)); /* may have been divided */
    outq_shrink_ring(q);
    return events - outq_events(q);
}

/* Where the piece must end to keep only whole events before offset. An event that was sent in part stays. */
static uint32_t piece_cut(const struct piece *piece, uint32_t offset)
{
    const uint32_t begun = piece->from + piece_begun(piece);
    const uint32_t end = chunk_event_begin(piece->chunk, offset);
    return end > begun ? end : begun;
}

uint64_t outq_drop_newest(struct outq *q, size_t keep)
{
    const uint64_t events = outq_events(q);
    while (q->count > 0 && q->bytes > keep) {
        struct piece *last = outq_piece(q, q->count - 1);
        const size_t excess = q->bytes - keep;
        const uint32_t length = last->to - last->from;
        const uint32_t to = piece_cut(last, excess < length ? last->to - (uint32_t)excess : last->from);
        if (to > last->from) {
            q->bytes -= last->to - to;
            last->to = to;
            piece_spare_chunk(last);
            break;
        }
        outq_drop_piece(q, --q->count);
    }
    outq_shrink_ring(q);
    return events - outq_events(q);
}

bool outq_push(struct outq *q, struct chunk *chunk)
{
    if (chunk->used > outq_room(q) || !outq_catch_up(q, 1))
        return false;
    outq_add_piece(q, chunk, 0, chunk->used);
    q->given++;
    if (q->run != NULL)
        run_review_at(q->run, outq_review_at(q));
    return true;
}

/* ---- from one queue to another ---------------------------------------------------------------------------------- */

/* An event of which a part was sent is to be sent again. */
static void outq_make_whole(struct outq *q)
{
    struct piece *piece = outq_piece(q, 0);
    const uint32_t begin = chunk_event_begin(piece->chunk, piece->from);
    q->bytes += piece->from - begin;
    piece->from = begin;
}

static void outq_swap(struct outq *a, struct outq *b)
{
    const struct outq other = *a;
    a->pieces = b->pieces;
    a->head = b->head;
    a->count = b->count;
    a->room = b->room;
    a->bytes = b->bytes;
    b->pieces = other.pieces;
    b->head = other.head;
    b->count = other.count;
    b->room = other.room;
    b->bytes = other.bytes;
}

bool outq_append(struct outq *q, struct outq *from)
{
    if (from->count == 0)
        return true;
    if (q->count > 0 && !outq_make_room(q, from->count))
        return false;
    outq_make_whole(from);
    if (q->count == 0) {
        outq_swap(q, from);
        return true;
    }
    for (uint32_t i = 0; i < from->count; i++)
        *outq_piece(q, q->count++) = *outq_piece(from, i);
    q->bytes += from->bytes;
    from->bytes = 0;
    from->count = 0;
    outq_free_ring(from);
    return true;
}

bool outq_prepend(struct outq *q, struct outq *from)
{
    if (from->count == 0)
        return true;
    if (q->count > 0 && !outq_append(from, q))
        return false;
    outq_make_whole(from);
    outq_swap(q, from);
    return true;
}

/* Add an event to the end of the queue, if possible in its last chunk. Chunks that events share have at most about this
 * room: events of different kinds may come in turn, so a chunk begins small after such a one. False: no memory. */
static bool outq_add_event(struct outq *q, const struct payload *payload, const struct chunk *from, size_t room)
{
    const size_t size = framing_size(q->framing, payload_length(payload));
    struct piece *last = q->count > 0 ? outq_piece(q, q->count - 1) : NULL;
    if (last == NULL || !chunk_is_like(last->chunk, from) || !chunk_fits(last->chunk, size)) {
        const size_t grown = last != NULL ? (last->chunk->used * (size_t)2) & ~(size_t)7 : room;
        const size_t most = from->meant_for != CHUNK_FOR_ALL ? 0 : grown < room ? grown : room;
        struct chunk *chunk = outq_make_room(q, 1) ? chunk_new(most, size) : NULL;
        if (chunk == NULL)
            return false;
        chunk_mark(chunk, from->meant_for, from->tag_hash);
        outq_add_piece(q, chunk, 0, 0);
        chunk_unref(chunk);
        last = outq_piece(q, q->count - 1);
    }
    chunk_append(last->chunk, q->framing, payload, size);
    last->to = last->chunk->used;
    q->bytes += size;
    return true;
}

/* Add the events of the piece to `to`, in its framing. Returns how many are dropped. */
static uint32_t piece_translate(const struct piece *piece, enum framing framing, struct outq *to, size_t room)
{
    const struct chunk *chunk = piece->chunk;
    const uint32_t end = chunk_events_before(chunk, piece->to);
    uint32_t dropped = 0;
    for (uint32_t i = chunk_events_before(chunk, piece->from); i < end; i++) {
        const struct payload payload = chunk_payload(chunk, i, framing);
        dropped +=
            framing_size(to->framing, payload_length(&payload)) == 0 || !outq_add_event(to, &payload, chunk, room);
    }
    return dropped;
}

uint64_t outq_translate(struct outq *q, enum framing framing)
{
    struct outq translated = { .framing = framing };
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < q->count; i++) {
        const size_t most = q->bytes * TRANSLATED_PART;
        dropped +=
            piece_translate(outq_piece(q, i), q->framing, &translated, most < RUN_CHUNK ? most & ~7U : RUN_CHUNK);
        outq_drop_piece(q, i);
    }
    q->count = 0;
    q->framing = framing;
    outq_swap(q, &translated);
    outq_free_ring(&translated);
    return dropped;
}

/* Looks from the newest event to the oldest. A unicast that another client has left may be older than those before it. */
static bool piece_is_repeated(const struct piece *piece, const struct outq *other)
{
    enum repetition repetition = REPETITION_NONE;
    if (piece->from != 0 || piece->chunk->events != 1 || piece->chunk->meant_for != CHUNK_FOR_ALL)
        return false;
    for (uint32_t i = other->count; i > 0 && repetition == REPETITION_NONE; i--) {
        const struct piece *there = outq_piece(other, i - 1);
        if (there->chunk->meant_for == CHUNK_FOR_ALL)
            repetition = chunk_look_for(there->chunk, there->from, there->to, piece->chunk);
    }
    return repetition == REPETITION_FOUND;
}

/* Drop the pieces that are repeated in the other queue. other NULL: those that are for nobody else with the tag. */
static uint64_t outq_drop_some(struct outq *q, const struct outq *other, uint64_t tag_hash)
{
    uint32_t kept = 0;
    uint64_t dropped = 0;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct piece piece = *outq_piece(q, i);
        if (other != NULL ? piece_is_repeated(&piece, other) : chunk_is_foreign(piece.chunk, tag_hash)) {
            dropped += piece_events(&piece);
            outq_drop_piece(q, i);
        } else {
            *outq_piece(q, kept++) = piece;
        }
    }
    q->count = kept;
    outq_shrink_ring(q);
    return dropped;
}

uint64_t outq_drop_foreign(struct outq *q, uint64_t tag_hash)
{
    return outq_drop_some(q, NULL, tag_hash);
}

uint64_t outq_drop_repeated(struct outq *q, const struct outq *other)
{
    return outq_drop_some(q, other, 0);
}

uint32_t outq_pop(struct outq *q, struct chunk **chunk)
{
    const uint32_t events = piece_events(outq_piece(q, 0));
    *chunk = chunk_ref(outq_piece(q, 0)->chunk);
    outq_drop_piece(q, 0);
    q->head = (q->head + 1) & (q->room - 1);
    q->count--;
    return events;
}

int outq_gather(const struct outq *q, struct iovec *iov, int most)
{
    int n = 0;
    for (; (uint32_t)n < q->count && n < most; n++) {
        const struct piece *piece = outq_piece(q, (uint32_t)n);
        iov[n] = chunk_iovec(piece->chunk, piece->from, piece->to);
    }
    const struct chunk *const first = outq_chunk(q);
    for (const struct chunk *chunk = first; chunk != NULL && n < most; chunk = chunk->next)
        iov[n++] = chunk_iovec(chunk, chunk == first ? outq_offset(q, chunk) : 0, chunk->used);
    return n;
}

/* The chunk's bytes between these offsets have been sent. Returns how many events have thereby been sent completely. */
static uint32_t outq_chunk_sent(const struct outq *q, const struct chunk *chunk, uint32_t from, uint32_t to)
{
    const uint32_t first = chunk_events_before(chunk, from);
    const uint32_t end = chunk_events_before(chunk, to);
    if (q->waits != NULL)
        chunk_note_waits(chunk, first, end, q->waits);
    return end - first;
}

/* Bytes of the first piece have been sent. */
static uint32_t outq_piece_sent(struct outq *q, uint32_t bytes)
{
    struct piece *piece = outq_piece(q, 0);
    const uint32_t events = outq_chunk_sent(q, piece->chunk, piece->from, piece->from + bytes);
    piece->from += bytes;
    q->bytes -= bytes;
    if (piece->from < piece->to)
        return events;
    outq_drop_piece(q, 0);
    q->head = (q->head + 1) & (q->room - 1);
    q->count--;
    return events;
}

/* Bytes of the run have been sent. */
static uint64_t outq_run_sent(struct outq *q, size_t bytes)
{
    const uint64_t end = q->byte + bytes;
    uint64_t events = 0;
    for (const struct chunk *chunk = outq_chunk(q); chunk != NULL && chunk->first_byte < end; chunk = chunk->next) {
        const uint64_t from = q->byte > chunk->first_byte ? q->byte - chunk->first_byte : 0;
        const uint64_t to = end - chunk->first_byte < chunk->used ? end - chunk->first_byte : chunk->used;
        events += outq_chunk_sent(q, chunk, (uint32_t)from, (uint32_t)to);
    }
    outq_move_on(q, end);
    return events;
}

uint64_t outq_sent(struct outq *q, size_t bytes)
{
    uint64_t events = 0;
    while (bytes > 0 && q->count > 0) {
        const struct piece *piece = outq_piece(q, 0);
        const uint32_t left = piece->to - piece->from;
        const uint32_t now = bytes < left ? (uint32_t)bytes : left;
        bytes -= now;
        events += outq_piece_sent(q, now);
    }
    if (bytes > 0)
        events += outq_run_sent(q, bytes);
    if (q->count == 0 && q->room > ROOM_KEPT)
        outq_free_ring(q);
    return events;
}

/* ---- hand-over -------------------------------------------------------------------------------------------------- */

void outq_save(const struct outq *q, struct state_out *out)
{
    for (uint32_t i = 0; i < q->count; i++) {
        const struct piece *piece = outq_piece(q, i);
        state_put_record(out, "piece");
        state_put_chunk(out, "chunk", piece->chunk);
        state_put(out, "from", piece->from);
        state_put(out, "to", piece->to);
        state_put_end(out);
    }
    state_put(out, "given", q->given);
    state_put(out, "follows", q->run != NULL);
    state_put(out, "byte", q->run != NULL ? q->byte : 0);
    state_put(out, "since", q->run != NULL ? q->since : 0);
}

bool outq_load(struct outq *q, struct state_in *in)
{
    while (state_get_next(in, "piece")) {
        bool missing = false;
        struct chunk *chunk = state_get_chunk(in, "chunk", &missing);
        const uint32_t from = (uint32_t)state_get(in, "from", 0);
        const uint32_t to = (uint32_t)state_get(in, "to", 0);
        if (chunk == NULL || from >= to || to > chunk->used || chunk_event_end(chunk, to) != to ||
            !outq_make_room(q, 1))
            return state_fail(in);
        outq_add_piece(q, chunk, from, to);
        state_get_end(in);
    }
    q->given = state_get(in, "given", 0);
    q->followed = state_get(in, "follows", 0) == 1;
    q->byte = state_get(in, "byte", 0);
    q->since = state_get(in, "since", 0);
    return !in->at.failed;
}

bool outq_resume(struct outq *q, struct run *run)
{
    const uint64_t kept = run->first != NULL ? run->first->first_byte : run->bytes;
    if (!q->followed)
        return true;
    if (q->byte < kept || q->byte > run->bytes || q->since > run->events)
        return false;
    q->followed = false;
    q->run = run;
    q->pin = run_find(run, run->first, q->byte);
    if (q->pin != NULL)
        q->pin->pins++;
    run_join(run, 0); /* the run asks it at the next event */
    return true;
}
