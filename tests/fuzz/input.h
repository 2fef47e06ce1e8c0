/* An input of libFuzzer's. A target takes its choices from the front of it. After its end the input continues with
 * zeros, so every input means something. Targets check with assert(): the build never defines NDEBUG. */
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

/* libFuzzer calls this. All other functions of a target are static. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

static inline struct input input_of(const uint8_t *bytes, size_t length)
{
    return (struct input){ .at = bytes, .end = bytes + length };
}

static inline size_t input_left(const struct input *in)
{
    return (size_t)(in->end - in->at);
}

/* The next 1 to 8 bytes, as a little-endian number. */
static inline uint64_t input_number(struct input *in, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes && in->at < in->end; i++)
        value |= (uint64_t)*in->at++ << 8 * i;
    return value;
}

/* A choice among count things; count is at most 65536. */
static inline size_t input_below(struct input *in, size_t count)
{
    assert(count > 0 && count <= 65536);
    return input_number(in, count > 256 ? 2 : 1) % count;
}

/* The next bytes, up to length of them. *taken is how many there are. */
static inline const uint8_t *input_take(struct input *in, size_t length, size_t *taken)
{
    const uint8_t *bytes = in->at;
    *taken = length < input_left(in) ? length : input_left(in);
    in->at += *taken;
    return bytes;
}

/* A copy whose memory ends with it, so the sanitizer sees a read after its end. The caller frees it. */
static inline void *copy_of(const void *bytes, size_t length)
{
    void *copy = malloc(length > 0 ? length : 1);
    assert(copy != NULL);
    if (length > 0)
        memcpy(copy, bytes, length);
    return copy;
}

#endif
