/* tail: events and messages as they pass, one after the other. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evapictl/ask.h"
#include "evapictl/json_text.h"
#include "evapictl/text.h"

/* How to print: on a terminal, a payload that is JSON is indented. */
struct look {
    bool terminal, colours;
};

/* Decode base64; the caller frees the bytes. NULL: it is invalid. */
static char *read_base64(const char *text, size_t length, size_t *size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *bytes = malloc(length + 1);
    unsigned group = 0;
    *size = 0;
    if (bytes == NULL)
        out_of_memory();
    for (size_t i = 0; i < length && text[i] != '='; i++) {
        const char *digit = text[i] != '\0' ? strchr(digits, text[i]) : NULL;
        if (digit == NULL) {
            free(bytes);
            return NULL;
        }
        group = group << 6 | (unsigned)(digit - digits);
        if (i % 4 != 0)
            bytes[(*size)++] = (char)(group >> (6 - 2 * (i % 4)) & 255);
    }
    return bytes;
}

static void print_bytes(const struct look *look, const char *bytes, size_t length, bool cut)
{
    if (look->terminal && !cut && is_json(bytes, length))
        print_json(stdout, bytes, length, 4, look->colours);
    else
        print_plain(stdout, bytes, length);
}

static void print_payload(const struct look *look, const json_t *line)
{
    const bool cut = is_true_at(line, "cut");
    const json_t *text = json_object_get(line, "payload");
    const json_t *base64 = json_object_get(line, "base64");
    size_t size = 0;
    char *bytes =
        json_is_string(base64) ? read_base64(json_string_value(base64), json_string_length(base64), &size) : NULL;
    if (json_is_string(text))
        print_bytes(look, json_string_value(text), json_string_length(text), cut);
    else if (bytes != NULL)
        print_bytes(look, bytes, size, cut);
    if (cut)
        printf("... (%lld bytes)", (long long)number_at(line, "bytes"));
    free(bytes);
}

/* "08:19:27.123" of a time, or the whole text if it has another form. */
static const char *time_of_day(const char *time)
{
    const char *t = strchr(time, 'T');
    return t != NULL ? t + 1 : time;
}

static void print_text(const char *text)
{
    print_plain(stdout, text, strlen(text));
}

static void print_line(const struct look *look, const json_t *line)
{
    const json_t *tag = json_object_get(line, "tag");
    print_text(time_of_day(text_at(line, "time")));
    fputs(look->colours ? " \033[1m" : " ", stdout);
    if (strcmp(text_at(line, "direction"), "in") == 0) {
        printf("in   client %lld", (long long)number_at(line, "client"));
    } else {
        fputs("out  ", stdout);
        print_text(text_at(line, "kind"));
        if (json_object_get(line, "client") != NULL)
            printf(" client %lld", (long long)number_at(line, "client"));
    }
    if (json_is_string(tag)) {
        fputs(" [", stdout);
        print_plain(stdout, json_string_value(tag), json_string_length(tag));
        fputc(']', stdout);
    }
    if (json_object_get(line, "receivers") != NULL)
        printf(" to %lld", (long long)number_at(line, "receivers"));
    fputs(look->colours ? "\033[0m  " : "  ", stdout);
    print_payload(look, line);
    putchar('\n');
}

/* Does the payload, as far as evapid has sent it, contain the text? */
static bool contains(const json_t *line, const char *wanted)
{
    const json_t *text = json_object_get(line, "payload");
    const json_t *base64 = json_object_get(line, "base64");
    size_t size = json_string_length(text);
    char *bytes =
        json_is_string(base64) ? read_base64(json_string_value(base64), json_string_length(base64), &size) : NULL;
    const char *payload = bytes != NULL ? bytes : json_string_value(text);
    const bool found = payload != NULL && memmem(payload, size, wanted, strlen(wanted)) != NULL;
    free(bytes);
    return found;
}

/* Print a line from evapid, if it is wanted; *left is how many more are. EXIT_FINE, or what is wrong was printed. */
static int show_line(const struct options *options, const struct look *look, const struct line_to *line,
                     const char *text, size_t length, long *left)
{
    json_t *shown = read_answer(text, length);
    int status = EXIT_FINE;
    const bool notice = json_object_get(shown, "dropped") != NULL || json_object_get(shown, "error") != NULL;
    if (shown != NULL && !notice && options->match != NULL && !contains(shown, options->match)) {
        json_decref(shown);
        return EXIT_FINE;
    }
    *left -= shown != NULL && !notice && *left > 0;
    if (shown == NULL || json_object_get(shown, "error") != NULL) {
        status = report_error(line, shown);
    } else if (options->json) {
        fwrite(text, 1, length, stdout);
        putchar('\n');
    } else if (json_object_get(shown, "dropped") != NULL) {
        printf("--- %lld events not shown: they came too fast\n", (long long)number_at(shown, "dropped"));
    } else {
        print_line(look, shown);
    }
    json_decref(shown);
    return status;
}

static int show_all(const struct options *options, const struct look *look, struct line_to *line)
{
    int status = EXIT_FINE;
    size_t length = 0;
    const char *text = NULL;
    long left = options->count;
    while (status == EXIT_FINE && left != 0) {
        while (status == EXIT_FINE && left != 0 && (text = line_next(line, &length)) != NULL)
            status = show_line(options, look, line, text, length, &left);
        if (fflush(stdout) != 0)
            return fail(EXIT_ANSWERED_ERROR, "standard output", strerror(errno));
        if (status == EXIT_FINE && left != 0 && line_fill(line) < 0)
            status = report_broken(line, errno);
    }
    return status;
}

int tail_run(const struct options *options, char **words, int count)
{
    struct line_to line;
    const bool terminal = isatty(STDOUT_FILENO);
    const char *no_color = getenv("NO_COLOR"); /* https://no-color.org */
    const struct look look = { .terminal = terminal, .colours = terminal && (no_color == NULL || no_color[0] == '\0') };
    (void)words;
    (void)count;
    json_t *request =
        json_pack("{s:s, s:s*, s:s*}", "command", "tail", "direction", options->direction, "tag", options->tag);
    if (request == NULL)
        return fail(EXIT_USAGE, "tag", "it must be UTF-8");
    if (options->client >= 0)
        json_object_set_new(request, "client", json_integer(options->client));
    int status = line_open(&line, options->socket);
    if (status != EXIT_FINE) {
        json_decref(request);
        return status;
    }
    json_t *answer = line_ask(&line, request, "tail", &status);
    if (answer != NULL) {
        line_set_patience(&line, 0);
        status = show_all(options, &look, &line);
    }
    json_decref(answer);
    line_close(&line);
    return status;
}
