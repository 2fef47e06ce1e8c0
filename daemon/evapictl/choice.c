/* Changes all clients of a choice, one request after the other: so evapid serves everybody else between two of them. */
#include "evapictl/choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evapictl/ask.h"
#include "evapictl/text.h"

#define ERROR_ROOM 1024

/* What is done to each client of the choice. */
struct deed {
    const char *command, *answer; /* the request, and the key of its answer */
    const char *tag;              /* NULL: none belongs to it */
    const char *done, *would;     /* texts for people, after the number of clients */
};

bool choice_is_made(const struct options *options)
{
    return options->tag != NULL || options->address != NULL || options->state != NULL || options->slow ||
           options->idle_s >= 0;
}

static void add_text(json_t *object, const char *key, const char *text)
{
    if (text != NULL && json_object_set_new(object, key, json_string(text)) != 0)
        exit(fail(EXIT_USAGE, text, "evapid knows texts in UTF-8 only"));
}

json_t *choice_request(const struct options *options)
{
    json_t *request = json_pack("{s:s}", "command", "clients");
    add_text(request, "sort", options->sort);
    add_text(request, "tag", options->tag);
    add_text(request, "address", options->address);
    add_text(request, "state", options->state);
    if (options->slow)
        json_object_set_new(request, "slow", json_true());
    if (options->idle_s >= 0)
        json_object_set_new(request, "idle_s", json_integer(options->idle_s));
    return request;
}

/* Is the client still connected, and not being closed? */
static bool is_there(const json_t *client)
{
    const char *state = text_at(client, "state");
    return strcmp(state, "gone") != 0 && strcmp(state, "flushing") != 0;
}

static json_int_t count_there(const json_t *clients)
{
    json_int_t count = 0;
    size_t i = 0;
    json_t *client = NULL;
    json_array_foreach(clients, i, client) count += is_there(client);
    return count;
}

/* Do it to one client. *done: it was still there. EXIT_FINE, or what is wrong was printed. */
static int do_to(struct line_to *line, const struct deed *deed, json_int_t index, bool *done)
{
    char error[ERROR_ROOM] = "";
    int status = EXIT_FINE;
    json_t *request = json_pack("{s:s, s:I, s:s*}", "command", deed->command, "client", index, "tag", deed->tag);
    if (request == NULL)
        return fail(EXIT_USAGE, "tag", "it must be UTF-8");
    fail_into(error, sizeof(error));
    json_t *answer = line_ask(line, request, deed->answer, &status);
    fail_into(NULL, 0);
    *done = answer != NULL;
    json_decref(answer);
    if (*done || strncmp(error, "no such client", strlen("no such client")) == 0)
        return EXIT_FINE; /* it has gone meanwhile */
    fprintf(stderr, "evapictl: %s\n", error);
    return status;
}

static void print_done(const struct options *options, const struct deed *deed, json_int_t count)
{
    if (options->json) {
        json_t *answer = json_pack("{s:{s:I, s:s*}}", deed->answer, "clients", count, "tag", deed->tag);
        json_dumpf(answer, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(answer);
        return;
    }
    printf("%lld client%s %s\n", (long long)count, count == 1 ? "" : "s", deed->done);
}

static int do_to_all(struct line_to *line, const struct options *options, const struct deed *deed,
                     const json_t *clients)
{
    json_int_t count = 0;
    size_t i = 0;
    json_t *client = NULL;
    json_array_foreach(clients, i, client)
    {
        bool done = false;
        const int status = is_there(client) ? do_to(line, deed, number_at(client, "index"), &done) : EXIT_FINE;
        count += done;
        if (status != EXIT_FINE) {
            if (count > 0)
                fprintf(stderr, "evapictl: before that, %lld client%s %s\n", (long long)count, count == 1 ? "" : "s",
                        deed->done);
            return status;
        }
    }
    print_done(options, deed, count);
    return EXIT_FINE;
}

static int choice_do(const struct options *options, const struct deed *deed)
{
    struct line_to line;
    int status = line_open(&line, options->socket);
    if (status != EXIT_FINE)
        return status;
    json_t *answer = line_ask(&line, choice_request(options), "clients", &status);
    const json_t *clients = json_object_get(answer, "clients");
    const json_int_t there = count_there(clients);
    if (answer != NULL && options->yes) {
        status = do_to_all(&line, options, deed, clients);
    } else if (answer != NULL) {
        fprintf(stderr, "evapictl: %lld client%s %s: add --yes to do it\n", (long long)there, there == 1 ? "" : "s",
                deed->would);
        status = EXIT_USAGE;
    }
    json_decref(answer);
    line_close(&line);
    return status;
}

int choice_close(const struct options *options)
{
    return choice_do(options, &(struct deed){ .command = "close",
                                              .answer = "closed",
                                              .done = "closed after receiving what is queued",
                                              .would = "would be closed" });
}

int choice_tag(const struct options *options, const char *tag)
{
    return choice_do(options, &(struct deed){ .command = "tag",
                                              .answer = "tagged",
                                              .tag = tag,
                                              .done = tag[0] != '\0' ? "now with the tag" : "now without a tag",
                                              .would = tag[0] != '\0' ? "would get the tag" : "would have no tag" });
}
