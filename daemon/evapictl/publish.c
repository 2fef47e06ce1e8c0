/* relay, multicast, unicast, send: events from the command line or standard input, to clients.
 *
 * evapid accepts netstrings and acknowledges its progress now and then. It reads only as fast as clients do, so
 * standard input is read no faster either. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "evapictl/ask.h"
#include "evapictl/text.h"
#include "evapid/netstring.h"

#define READ_BYTES 65536U

/* Bytes on their way: those from begin to end wait. */
struct buffer {
    char *bytes;
    size_t begin, end, room;
};

struct publishing {
    struct line_to line;
    struct buffer lines;  /* of standard input, an incomplete line */
    struct buffer framed; /* on their way to evapid */
    bool over;            /* standard input has ended */
    int failure;          /* why standard input could not be read to its end: an errno; 0: it could */
    bool told;            /* evapid knows of the end */
    json_t *answer;       /* the last one */
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* Room for size more bytes after the waiting ones. */
static char *buffer_room(struct buffer *buffer, size_t size)
{
    if (buffer->begin > 0 && buffer->room - buffer->end < size) {
        memmove(buffer->bytes, buffer->bytes + buffer->begin, buffer->end - buffer->begin);
        buffer->end -= buffer->begin;
        buffer->begin = 0;
    }
    if (buffer->room - buffer->end < size) {
        buffer->room = (buffer->end + size) * 2;
        char *more = realloc(buffer->bytes, buffer->room);
        if (more == NULL)
            out_of_memory();
        buffer->bytes = more;
    }
    return buffer->bytes + buffer->end;
}

static void frame_event(struct buffer *framed, const char *event, size_t length)
{
    char *to = buffer_room(framed, length + NETSTRING_HEADER_MAX + 1);
    const size_t header = netstring_header(to, length);
    memcpy(to + header, event, length);
    to[header + length] = ',';
    framed->end += header + length + 1;
}

/* Each whole line is an event; at the end also a line without a newline. */
static void frame_lines(struct publishing *publishing)
{
    struct buffer *lines = &publishing->lines;
    const char *end = NULL;
    while (lines->end > lines->begin &&
           (end = memchr(lines->bytes + lines->begin, '\n', lines->end - lines->begin)) != NULL) {
        const char *begin = lines->bytes + lines->begin;
        frame_event(&publishing->framed, begin, (size_t)(end - begin));
        lines->begin += (size_t)(end - begin) + 1;
    }
    if (publishing->over && lines->end > lines->begin) {
        frame_event(&publishing->framed, lines->bytes + lines->begin, lines->end - lines->begin);
        lines->begin = lines->end;
    }
}

static void read_lines(struct publishing *publishing)
{
    char *to = buffer_room(&publishing->lines, READ_BYTES);
    const ssize_t n = read(STDIN_FILENO, to, READ_BYTES);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    publishing->failure = n < 0 ? errno : 0;
    publishing->over = n <= 0;
    publishing->lines.end += n > 0 ? (size_t)n : 0;
    frame_lines(publishing);
}

/* Send waiting bytes, as many as evapid accepts. After the last one, send the end. Errors show when reading. */
static void send_framed(struct publishing *publishing)
{
    struct buffer *framed = &publishing->framed;
    if (framed->end > framed->begin) {
        const ssize_t n = send(publishing->line.fd, framed->bytes + framed->begin, framed->end - framed->begin,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
        framed->begin += n > 0 ? (size_t)n : 0;
    }
    if (publishing->over && framed->begin == framed->end && !publishing->told) {
        shutdown(publishing->line.fd, SHUT_WR);
        publishing->told = true;
    }
}

/* The connection ended too early, because evapid ended or was replaced: print how far it was. */
static int report_broken_off(const struct publishing *publishing, int error)
{
    const int status = report_broken(&publishing->line, error);
    fprintf(stderr, "evapictl: it has acknowledged %lld events; some later ones may have been published too\n",
            (long long)number_at(json_object_get(publishing->answer, "published"), "events"));
    return status;
}

/* Read acknowledgements. EXIT_FINE, and *done if the last of all has arrived, which is then in answer; or what is wrong
 * was printed. */
static int read_acknowledgements(struct publishing *publishing, bool *done)
{
    size_t length = 0;
    const char *text = NULL;
    if (line_fill(&publishing->line) < 0)
        return report_broken_off(publishing, errno);
    while ((text = line_next(&publishing->line, &length)) != NULL) {
        json_decref(publishing->answer);
        publishing->answer = read_answer(text, length);
        if (!json_is_object(json_object_get(publishing->answer, "published")) ||
            json_object_get(publishing->answer, "error") != NULL)
            return report_error(&publishing->line, publishing->answer);
        *done = is_true_at(publishing->answer, "end");
    }
    return EXIT_FINE;
}

/* Wait for anything that can go on: standard input while little waits for evapid, evapid while something does, and its
 * answers. */
static int publish_all(struct publishing *publishing)
{
    int status = EXIT_FINE;
    bool done = false;
    while (status == EXIT_FINE && !done) {
        const struct buffer *framed = &publishing->framed;
        publishing->over = publishing->over || interrupted;
        const bool wants = !publishing->over && framed->end - framed->begin < READ_BYTES;
        const bool sends = !publishing->told && (framed->end > framed->begin || publishing->over);
        struct pollfd both[] = { { .fd = wants ? STDIN_FILENO : -1, .events = POLLIN },
                                 { .fd = publishing->line.fd, .events = (short)(sends ? POLLIN | POLLOUT : POLLIN) } };
        if (poll(both, 2, -1) < 0)
            continue; /* interrupted */
        if (both[0].revents != 0)
            read_lines(publishing);
        if ((both[1].revents & POLLOUT) != 0)
            send_framed(publishing);
        if ((both[1].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            status = read_acknowledgements(publishing, &done);
    }
    return status;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* text: it was one event, from the command line. */
static void print_outcome(const struct options *options, json_t *answer, double seconds, bool text)
{
    char size[SHORT_TEXT];
    json_t *published = json_object_get(answer, "published");
    const json_int_t events = number_at(published, "events");
    const double rate = seconds > 0 ? (double)events / seconds : 0;
    if (options->json) {
        json_object_set_new(published, "seconds", json_real(seconds));
        json_object_set_new(published, "events_per_second", json_real(rate));
        json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        return;
    }
    if (text && json_object_get(published, "receivers") != NULL) {
        const json_int_t receivers = number_at(published, "receivers");
        if (receivers == 0)
            puts("nobody got it");
        else
            printf("%lld client%s got it\n", (long long)receivers, receivers == 1 ? "" : "s");
        return;
    }
    printf("%lld event%s, %s bytes, %.0f events/s; %lld had a receiver\n", (long long)events, events == 1 ? "" : "s",
           show_size(number_at(published, "bytes"), size), rate, (long long)number_at(published, "received"));
}

/* Make one event of the words, separated by spaces as echo does. */
static void frame_words(struct publishing *publishing, char **words, int count)
{
    struct buffer event = { .bytes = NULL };
    for (int i = 0; i < count; i++) {
        const size_t length = strlen(words[i]);
        char *to = buffer_room(&event, length + 1);
        if (i > 0)
            *to++ = ' ';
        memcpy(to, words[i], length);
        event.end += length + (i > 0 ? 1 : 0);
    }
    frame_event(&publishing->framed, event.bytes, event.end);
    free(event.bytes);
    publishing->over = true;
}

/* Were there events, and no client for any of them? */
static bool reached_nobody(const json_t *answer)
{
    const json_t *published = json_object_get(answer, "published");
    return number_at(published, "events") > 0 && number_at(published, "received") == 0;
}

/* Who has forgotten the text would wait for an answer. */
static void say_what_is_read(void)
{
    if (isatty(STDIN_FILENO))
        fputs("evapictl: each line that you type is an event; Ctrl-D ends the input\n", stderr);
}

static int publish(const struct options *options, json_t *request, char **words, int count)
{
    struct publishing publishing = { .over = false };
    struct sigaction action = { .sa_handler = on_interrupt };
    int status = line_open(&publishing.line, options->socket);
    if (status != EXIT_FINE) {
        json_decref(request);
        return status;
    }
    publishing.answer = line_ask(&publishing.line, request, "published", &status);
    if (publishing.answer != NULL) {
        const double begun = now_s();
        line_set_patience(&publishing.line, 0);
        if (count > 0) {
            frame_words(&publishing, words, count);
        } else {
            say_what_is_read();
            sigaction(SIGINT, &action, NULL); /* SIGINT ends the input, for a user who types it */
        }
        status = publish_all(&publishing);
        if (status == EXIT_FINE)
            print_outcome(options, publishing.answer, now_s() - begun, count > 0);
        if (status == EXIT_FINE && publishing.failure != 0)
            status = fail(EXIT_ANSWERED_ERROR, "standard input", strerror(publishing.failure));
        if (status == EXIT_FINE && !options->allow_none)
            status = reached_nobody(publishing.answer) ? EXIT_NOBODY : EXIT_FINE;
    }
    json_decref(publishing.answer);
    line_close(&publishing.line);
    free(publishing.lines.bytes);
    free(publishing.framed.bytes);
    return status;
}

static int publish_to_tag(const struct options *options, const char *command, char **words, int count)
{
    json_t *request = json_pack("{s:s, s:s, s:b}", "command", command, "tag", words[0], "stream", true);
    if (request == NULL)
        return fail(EXIT_USAGE, "tag", "it must be UTF-8");
    return publish(options, request, words + 1, count - 1);
}

int publish_relay(const struct options *options, char **words, int count)
{
    return publish(options, json_pack("{s:s, s:b}", "command", "relay", "stream", true), words, count);
}

int publish_multicast(const struct options *options, char **words, int count)
{
    return publish_to_tag(options, "multicast", words, count);
}

int publish_unicast(const struct options *options, char **words, int count)
{
    return publish_to_tag(options, "unicast", words, count);
}

int publish_send(const struct options *options, char **words, int count)
{
    json_t *request =
        json_pack("{s:s, s:I, s:b}", "command", "send", "client", (json_int_t)atoll(words[0]), "stream", true);
    return publish(options, request, words + 1, count - 1);
}
