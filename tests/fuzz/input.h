/* An input of libFuzzer's, taken from the front: what a fuzz target reads its choices from. An input that has run out
 * goes on as zeros, so that every input means something. Each target checks what must hold with assert(): the build
 * never defines NDEBUG. */
#ifndef EVAPID_FUZZ_INPUT_H
#define EVAPID_FUZZ_INPUT_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct input {
    const uint8_t *at, *end;
};

/* What libFuzzer calls; a target has no other function that is not static. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static inline struct input input_of(const uint8_t *bytes, size_t length)
{
    return (struct input){ .at = bytes, .end = bytes + length };
}

static inline size_t input_left(const struct input *in)
{
    return (size_t)(in->end - in->at);
}

/* The next bytes as a little-endian number: 1 to 8 of them. */
static inline uint64_t input_number(struct input *in, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && in->at < in->end; i++)
        value |= (uint64_t)*in->at++ << 8 * i;
    return value;
}

/* A choice among count things, count at most 65536. */
static inline size_t input_below(struct input *in, size_t count)
{
    assert(count > 0 && count <= 65536);
    return input_number(in, count > 256 ? 2 : 1) % count;
}

/* Up to length of the next bytes; *taken is how many there are. */
static inline const uint8_t *input_take(struct input *in, size_t length, size_t *taken)
{
    const uint8_t *bytes = in->at;
    *taken = length < input_left(in) ? length : input_left(in);
    in->at += *taken;
    return bytes;
}

/* A copy that ends where its memory does, so that the sanitizer sees a read beyond it; the caller frees it. */
static inline void *copy_of(const void *bytes, size_t length)
{
    void *copy = malloc(length > 0 ? length : 1);
    assert(copy != NULL);
    if (length > 0)
        memcpy(copy, bytes, length);
    return copy;
}

#endif
