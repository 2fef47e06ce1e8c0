/* Writes and reads a state. */
#include "base/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A field is the length of its name (u8), the name, its kind (u8), and its value. An END is just a length of 0. */
enum field_kind {
    FIELD_RECORD = 0, /* fields, up to an END */
    /* 1 to 8: a number of this many bytes */
    FIELD_NUMBER_MAX = 8,
    FIELD_BYTES = 9 /* length (u64) and bytes */
};

#define HEAD_BYTES 16U

const char *state_judge(uint32_t version, uint32_t reader)
{
    static char why[128];
    if (version < STATE_OLDEST)
        snprintf(why, sizeof(why),
                 "it was written by another version, which is too old (format %u; this one reads %u to %u)", version,
                 STATE_OLDEST, STATE_VERSION);
    else if (reader > STATE_VERSION)
        snprintf(why, sizeof(why), "it was written by a later version, for %u or later (format %u; this one is %u)",
                 reader, version, STATE_VERSION);
    else
        return NULL;
    return why;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static void put_number(struct state_out *out, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        putc((unsigned char)(value >> 8 * i), out->file);
}

static void put_head(struct state_out *out, const char *name, unsigned kind)
{
    const size_t length = strlen(name);
    putc((unsigned char)length, out->file);
    fwrite(name, 1, length, out->file);
    putc((unsigned char)kind, out->file);
}

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
    put_number(out, STATE_MAGIC, 8);
    put_number(out, STATE_VERSION, 4);
    put_number(out, STATE_READER, 4);
    return true;
}

void state_put(struct state_out *out, const char *name, uint64_t value)
{
    unsigned bytes = 1;
    while (bytes < FIELD_NUMBER_MAX && value >> 8 * bytes != 0)
        bytes++;
    put_head(out, name, bytes);
    put_number(out, value, bytes);
}

void state_put_bytes(struct state_out *out, const char *name, const void *bytes, size_t length)
{
    state_put_bytes_begin(out, name, length);
    if (length > 0)
        fwrite(bytes, 1, length, out->file);
}

void state_put_text(struct state_out *out, const char *name, const char *text)
{
    state_put_bytes(out, name, text, strlen(text));
}

void state_put_record(struct state_out *out, const char *name)
{
    put_head(out, name, FIELD_RECORD);
}

void state_put_end(struct state_out *out)
{
    putc(0, out->file);
}

void state_put_bytes_begin(struct state_out *out, const char *name, uint64_t length)
{
    put_head(out, name, FIELD_BYTES);
    put_number(out, length, 8);
}

void state_put_bytes_u32(struct state_out *out, uint32_t value)
{
    put_number(out, value, 4);
}

uint32_t state_number(struct state_out *out)
{
    return ++out->shared;
}

int state_end(struct state_out *out)
{
    state_put_end(out);
    const bool good = fflush(out->file) == 0 && ferror(out->file) == 0;
    const int memfd = good ? fcntl(fileno(out->file), F_DUPFD_CLOEXEC, 0) : -1;
    fclose(out->file);
    out->file = NULL;
    return memfd;
}

/* ---- fields ----------------------------------------------------------------------------------------------------- */

struct field {
    struct wire_text name; /* without a name: an END */
    unsigned kind;
};

static struct field take_head(struct wire_cursor *at)
{
    struct field field = { .name = wire_get_text(at, 1) };
    if (field.name.length > 0)
        field.kind = (unsigned)wire_get(at, 1);
    if (field.kind > FIELD_BYTES || field.name.length > STATE_NAME_MAX)
        at->failed = true;
    return field;
}

static bool is_end(const struct wire_cursor *at, const struct field *field)
{
    return at->failed || field->name.length == 0;
}

/* Skip a field's value; for a record, everything to its END. */
static void skip_value(struct wire_cursor *at, unsigned kind)
{
    unsigned depth = 0;
    for (;;) {
        if (kind == FIELD_RECORD)
            depth++;
        else
            wire_get_bytes(at, kind == FIELD_BYTES ? (size_t)wire_get(at, 8) : kind);
        for (struct field field; depth > 0; depth--) { /* the next field; after an END, that of the enclosing record */
            field = take_head(at);
            kind = field.kind;
            if (at->failed)
                return;
            if (!is_end(at, &field))
                break;
        }
        if (depth == 0)
            return;
    }
}

/* Note a field that nobody has asked for. */
static void note_unknown(struct state_in *in, const struct field *field, size_t bytes)
{
    char name[sizeof(in->unknown[0].name)] = "";
    size_t length = 0;
    for (unsigned i = 0; i < in->depth; i++)
        length += (size_t)snprintf(name + length, sizeof(name) - length, "%s.", in->path[i]);
    snprintf(name + length, sizeof(name) - length, "%.*s", (int)field->name.length, field->name.bytes);
    for (unsigned i = 0; i < in->unknown_count; i++)
        if (strcmp(in->unknown[i].name, name) == 0) {
            in->unknown[i].bytes += bytes;
            return;
        }
    if (in->unknown_count == STATE_UNKNOWN_MAX)
        return;
    struct state_unknown *unknown = &in->unknown[in->unknown_count++];
    unknown->bytes = bytes;
    memcpy(unknown->name, name, sizeof(name));
}

/* Skip the fields up to there. */
static void pass_over(struct state_in *in, const unsigned char *there)
{
    while (!in->at.failed && in->at.at < there) {
        const unsigned char *begin = in->at.at;
        const struct field field = take_head(&in->at);
        skip_value(&in->at, field.kind);
        note_unknown(in, &field, (size_t)(in->at.at - begin));
    }
}

/* Find the next field of this name in the current record, and stop at its value. False: it is missing. */
static bool find_field(struct state_in *in, const char *name, unsigned *kind)
{
    struct wire_cursor at = in->at;
    const size_t length = strlen(name);
    while (in->absent == 0 && !at.failed) {
        unsigned char *here = at.at;
        const struct field field = take_head(&at);
        if (is_end(&at, &field))
            break;
        if (field.name.length == length && memcmp(field.name.bytes, name, length) == 0) {
            pass_over(in, here);
            in->at = at;
            *kind = field.kind;
            return true;
        }
        skip_value(&at, field.kind);
    }
    in->at.failed = at.failed;
    return false;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static const char *state_map(struct state_in *in, int memfd)
{
    struct stat file;
    if (fstat(memfd, &file) != 0)
        return strerror(errno);
    if (file.st_size < (off_t)HEAD_BYTES)
        return "it is too short";
    in->size = (size_t)file.st_size;
    in->memory = mmap(NULL, in->size, PROT_READ, MAP_PRIVATE, memfd, 0);
    if (in->memory == MAP_FAILED) {
        in->memory = NULL;
        return strerror(errno);
    }
    in->at = wire_reading(in->memory, in->size);
    const uint64_t magic = wire_get(&in->at, 8);
    in->version = (uint32_t)wire_get(&in->at, 4);
    const uint32_t reader = (uint32_t)wire_get(&in->at, 4);
    const char *why = magic == STATE_MAGIC ? state_judge(in->version, reader) : "it is not a state";
    if (why == NULL)
        return NULL;
    munmap(in->memory, in->size);
    in->memory = NULL;
    return why;
}

const char *state_open(struct state_in *in, int memfd)
{
    *in = (struct state_in){ 0 };
    const char *why = state_map(in, memfd);
    close(memfd);
    return why;
}

uint64_t state_get(struct state_in *in, const char *name, uint64_t missing)
{
    unsigned kind = 0;
    if (!find_field(in, name, &kind))
        return missing;
    if (kind == FIELD_RECORD || kind > FIELD_NUMBER_MAX)
        state_fail(in);
    return wire_get(&in->at, kind);
}

struct wire_text state_get_bytes(struct state_in *in, const char *name)
{
    unsigned kind = 0;
    if (!find_field(in, name, &kind))
        return (struct wire_text){ "", 0 };
    if (kind != FIELD_BYTES)
        state_fail(in);
    return wire_get_bytes(&in->at, (size_t)wire_get(&in->at, 8));
}

static void enter(struct state_in *in, const char *name)
{
    if (in->depth == STATE_DEPTH)
        abort(); /* no state is that deep: our own code is wrong */
    in->path[in->depth++] = name;
}

bool state_get_next(struct state_in *in, const char *name)
{
    unsigned kind = 0;
    if (!find_field(in, name, &kind))
        return false;
    if (kind != FIELD_RECORD)
        return state_fail(in);
    enter(in, name);
    return true;
}

void state_get_record(struct state_in *in, const char *name)
{
    if (state_get_next(in, name))
        return;
    enter(in, name);
    in->absent++;
}

void state_get_end(struct state_in *in)
{
    struct wire_cursor at = in->at;
    if (in->absent > 0) {
        in->absent--;
        in->depth--;
        return;
    }
    for (;;) {
        unsigned char *here = at.at;
        const struct field field = take_head(&at);
        if (is_end(&at, &field)) {
            if (!at.failed)
                pass_over(in, here);
            break;
        }
        skip_value(&at, field.kind);
    }
    in->at = at;
    if (in->depth > 0)
        in->depth--;
}

bool state_make_room(struct state_in *in, uint64_t number)
{
    if (in->at.failed || number != in->count + (uint64_t)1)
        return false;
    if (in->count < in->room)
        return true;
    const uint32_t room = in->room == 0 ? 64 : in->room * 2;
    struct state_shared *shared = realloc(in->shared, room * sizeof(*shared));
    if (shared == NULL)
        return false;
    in->shared = shared;
    in->room = room;
    return true;
}

void state_share(struct state_in *in, void *thing, void (*release)(void *thing))
{
    in->shared[in->count++] = (struct state_shared){ .thing = thing, .release = release };
}

enum state_reference state_get_reference(struct state_in *in, const char *name, void **thing)
{
    unsigned kind = 0;
    *thing = NULL;
    if (!find_field(in, name, &kind))
        return STATE_MISSING;
    if (kind == FIELD_RECORD) {
        enter(in, name);
        return STATE_FIRST;
    }
    const uint64_t number = kind <= FIELD_NUMBER_MAX ? wire_get(&in->at, kind) : UINT64_MAX;
    if (number > in->count)
        state_fail(in);
    else if (number > 0 && !in->at.failed)
        *thing = in->shared[number - 1].thing;
    return STATE_AGAIN;
}

bool state_finish(struct state_in *in)
{
    state_get_end(in);
    if (in->at.at != in->at.end)
        state_fail(in);
    return !in->at.failed;
}

bool state_close(struct state_in *in)
{
    const bool good = !in->at.failed;
    if (in->memory == NULL)
        return good;
    for (uint32_t i = 0; i < in->count; i++)
        in->shared[i].release(in->shared[i].thing);
    free(in->shared);
    munmap(in->memory, in->size);
    *in = (struct state_in){ 0 };
    return good;
}
