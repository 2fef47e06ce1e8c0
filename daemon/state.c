/* Writing and reading a state. */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- writing ---------------------------------------------------------------------------------------------------- */

bool state_begin(struct state_out *out)
{
    static uint32_t serial;
    *out = (struct state_out){ .serial = ++serial };
    const int memfd = memfd_create("evapid-state", MFD_CLOEXEC);
    out->file = memfd >= 0 ? fdopen(memfd, "w") : NULL;
    if (out->file == NULL && memfd >= 0)
        close(memfd);
    if (out->file == NULL)
        return false;
    state_put(out, STATE_MAGIC, 8);
    state_put(out, STATE_VERSION, 4);
    return true;
}

void state_put(struct state_out *out, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        putc((unsigned char)(value >> 8 * i), out->file);
}

void state_put_bytes(struct state_out *out, const void *bytes, size_t length)
{
    state_put(out, length, 8);
    if (length > 0)
        fwrite(bytes, 1, length, out->file);
}

static void state_put_end(struct state_out *out, struct chunk_end end)
{
    state_put(out, end.at, 4);
    state_put(out, end.age, 4);
}

void state_put_chunk(struct state_out *out, struct chunk *chunk)
{
    if (chunk == NULL || chunk->state_serial == out->serial) {
        state_put(out, chunk != NULL ? chunk->state_number : 0, 4);
        return;
    }
    chunk->state_serial = out->serial;
    chunk->state_number = ++out->chunks;
    state_put(out, chunk->state_number, 4);
    state_put(out, chunk->room, 4);
    state_put(out, chunk->events, 4);
    for (uint32_t i = 0; i < chunk->events; i++)
        state_put_end(out, chunk_end_of(chunk, i));
    state_put(out, chunk->taken_ns, 8);
    state_put_bytes(out, chunk->bytes, chunk->used);
}

int state_end(struct state_out *out)
{
    const bool good = fflush(out->file) == 0 && ferror(out->file) == 0;
    const int memfd = good ? fcntl(fileno(out->file), F_DUPFD_CLOEXEC, 0) : -1;
    fclose(out->file);
    out->file = NULL;
    return memfd;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static const char *state_map(struct state_in *in, int memfd)
{
    struct stat file;
    if (fstat(memfd, &file) != 0)
        return strerror(errno);
    if (file.st_size < 12)
        return "it is too short";
    in->size = (size_t)file.st_size;
    in->memory = mmap(NULL, in->size, PROT_READ, MAP_PRIVATE, memfd, 0);
    if (in->memory == MAP_FAILED)
        return strerror(errno);
    in->at = wire_reading(in->memory, in->size);
    if (state_take(in, 8) == STATE_MAGIC && state_take(in, 4) == STATE_VERSION)
        return NULL;
    munmap(in->memory, in->size);
    return "it was written by another version";
}

const char *state_open(struct state_in *in, int memfd)
{
    *in = (struct state_in){ 0 };
    const char *why = state_map(in, memfd);
    close(memfd);
    return why;
}

uint64_t state_take(struct state_in *in, unsigned bytes)
{
    return wire_take(&in->at, bytes);
}

struct wire_text state_take_bytes(struct state_in *in)
{
    return wire_take_bytes(&in->at, (size_t)state_take(in, 8));
}

/* Room for one more chunk in the list. */
static bool state_make_room(struct state_in *in)
{
    if (in->count < in->room)
        return true;
    const uint32_t room = in->room == 0 ? 64 : in->room * 2;
    struct chunk **chunks = realloc(in->chunks, room * sizeof(struct chunk *));
    if (chunks == NULL)
        return false;
    in->chunks = chunks;
    in->room = room;
    return true;
}

static struct chunk *state_read_chunk(struct state_in *in)
{
    const size_t room = (size_t)state_take(in, 4);
    const uint32_t events = (uint32_t)state_take(in, 4);
    struct chunk_end *ends = NULL;
    if (in->at.failed || events > (size_t)(in->at.end - in->at.at) / sizeof(*ends))
        return NULL;
    ends = malloc(events * sizeof(*ends) + 1);
    for (uint32_t i = 0; ends != NULL && i < events; i++) {
        ends[i].at = (uint32_t)state_take(in, 4);
        ends[i].age = (uint32_t)state_take(in, 4);
    }
    const uint64_t taken_ns = state_take(in, 8);
    const struct wire_text bytes = state_take_bytes(in);
    struct chunk *chunk =
        ends != NULL && !in->at.failed ? chunk_restore(room, bytes.bytes, bytes.length, ends, events, taken_ns) : NULL;
    free(ends);
    return chunk;
}

struct chunk *state_take_chunk(struct state_in *in)
{
    const uint32_t number = (uint32_t)state_take(in, 4);
    if (in->at.failed || number == 0)
        return NULL;
    if (number <= in->count)
        return in->chunks[number - 1];
    struct chunk *chunk = number == in->count + 1 && state_make_room(in) ? state_read_chunk(in) : NULL;
    if (chunk == NULL)
        state_fail(in);
    else
        in->chunks[in->count++] = chunk;
    return chunk;
}

bool state_close(struct state_in *in)
{
    const bool good = !in->at.failed && in->at.at == in->at.end;
    if (in->memory == NULL)
        return good;
    for (uint32_t i = 0; i < in->count; i++)
        chunk_unref(in->chunks[i]);
    free(in->chunks);
    munmap(in->memory, in->size);
    *in = (struct state_in){ 0 };
    return good;
}
