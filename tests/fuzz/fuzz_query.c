/* Fuzzing what the module reads after it has asked evapid: bytes from the Unix socket go to shim/query.c. It accepts an
 * answer only if it is a single frame that can be read to its end: every struct and list is closed, and every name and
 * text is one that Kamailio's interfaces can show. Written again, the answer has the same bytes. */
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "evapid/answer.h"
#include "input.h"
#include "query.h"

static void check_name(const struct answer_item *item, bool listed)
{
    const size_t length = strlen(item->name);
    assert(length <= ANSWER_NAME_MAX && (length == 0) == (listed || item->kind == ANSWER_END));
    assert(strspn(item->name, "abcdefghijklmnopqrstuvwxyz_") == length);
}

static void write_again(struct wire_cursor *c, const struct answer_item *item)
{
    switch (item->kind) {
    case ANSWER_END: answer_put_end(c); break;
    case ANSWER_STRUCT: answer_put_struct(c, item->name); break;
    case ANSWER_LIST: answer_put_list(c, item->name); break;
    case ANSWER_NUMBER: answer_put_number(c, item->name, item->number); break;
    case ANSWER_TEXT: /* answer_put_text would escape the text a second time */
        answer_put_name(c, ANSWER_TEXT, item->name);
        wire_put_text(c, item->text, 2);
        break;
    }
}

static void check_answer(struct wire_text answer)
{
    bool in_list[ANSWER_DEPTH + 1] = { false };
    unsigned depth = 0;
    struct answer_item item;
    unsigned char *again = malloc(answer.length + 1);
    assert(again != NULL);
    struct wire_cursor c = { .at = again, .end = again + answer.length };
    struct answer_reader reader = answer_reading(answer.bytes, answer.length);
    enum answer_read read = answer_next(&reader, &item);
    for (; read == ANSWER_ITEM; read = answer_next(&reader, &item)) {
        const bool opens = item.kind == ANSWER_STRUCT || item.kind == ANSWER_LIST;
        assert(item.kind != ANSWER_END || depth > 0);
        check_name(&item, in_list[depth]);
        assert(item.kind == ANSWER_END || item.kind == ANSWER_STRUCT || !in_list[depth]);
        for (size_t i = 0; item.kind == ANSWER_TEXT && i < item.text.length; i++)
            assert(item.text.bytes[i] >= 0x20 && item.text.bytes[i] < 0x7f);
        write_again(&c, &item);
        depth = opens ? depth + 1 : item.kind == ANSWER_END ? depth - 1 : depth;
        assert(depth <= ANSWER_DEPTH);
        if (opens)
            in_list[depth] = item.kind == ANSWER_LIST;
    }
    assert(read == ANSWER_OVER && depth == 0);
    assert(!c.failed && c.at == c.end && memcmp(again, answer.bytes, answer.length) == 0);
    free(again);
}

static uint64_t in_a_minute(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + 60000;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    int pair[2];
    struct wire_text answer;
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    const size_t sent = length < 150000 ? length : 150000; /* as much as the socket takes at once */
    assert(send(pair[1], bytes, sent, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sent);
    close(pair[1]);
    const char *why = query_receive(pair[0], in_a_minute(), &answer);
    close(pair[0]);
    if (why != NULL) {
        assert(*why != '\0');
        return 0;
    }
    assert(sent >= WIRE_HEADER + answer.length && answer.length <= WIRE_ANSWER_MAX && bytes[4] == WIRE_ANSWER);
    assert(memcmp(answer.bytes, bytes + WIRE_HEADER, answer.length) == 0);
    check_answer(answer);
    return 0;
}
