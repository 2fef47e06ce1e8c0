/* The views: evapid's answers, as text in columns or as the original JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evapictl/ask.h"
#include "evapictl/choice.h"
#include "evapictl/status_text.h"
#include "evapictl/table.h"
#include "evapictl/text.h"

typedef void show_answer(const json_t *answer);

/* Ask, and print the answer. Repeated JSON is printed on one line each. */
static int show(const struct options *options, json_t *request, const char *key, show_answer *print)
{
    int status = EXIT_FINE;
    json_t *answer = ask(options, request, key, &status);
    if (answer == NULL)
        return status;
    if (options->json) {
        const size_t flags = options->watch_s > 0 ? JSON_COMPACT : JSON_INDENT(2);
        status = json_dumpf(answer, stdout, flags) == 0 && putchar('\n') != EOF ? EXIT_FINE : EXIT_ANSWERED_ERROR;
    } else {
        make_printable(answer);
        print(answer);
    }
    json_decref(answer);
    return status;
}

static json_t *request(const char *command)
{
    return json_pack("{s:s}", "command", command);
}

static void add_limit(json_t *object, const struct options *options)
{
    if (options->limit >= 0)
        json_object_set_new(object, "limit", json_integer(options->limit));
}

int show_status(const struct options *options, char **words, int count)
{
    (void)words;
    (void)count;
    return show(options, request("status"), "version", print_status);
}

int show_kamailio(const struct options *options, char **words, int count)
{
    (void)words;
    (void)count;
    return show(options, request("kamailio"), "kamailio", print_kamailio);
}

int show_listeners(const struct options *options, char **words, int count)
{
    (void)words;
    (void)count;
    return show(options, request("listeners"), "listeners", print_listeners);
}

int show_clients(const struct options *options, char **words, int count)
{
    (void)words;
    (void)count;
    json_t *asked = choice_request(options);
    add_limit(asked, options);
    return show(options, asked, "clients", print_clients);
}

int show_client(const struct options *options, char **words, int count)
{
    (void)count;
    return show(options, json_pack("{s:s, s:I}", "command", "client", "client", (json_int_t)atoll(words[0])), "client",
                print_client);
}

int show_tags(const struct options *options, char **words, int count)
{
    (void)words;
    (void)count;
    json_t *asked = request("tags");
    add_limit(asked, options);
    return show(options, asked, "tags", print_tags);
}

int show_stats(const struct options *options, char **words, int count)
{
    (void)words;
    (void)count;
    json_t *asked = request("stats");
    if (options->reset)
        json_object_set_new(asked, "reset", json_true());
    return show(options, asked, "since_reset", print_stats);
}

int show_config(const struct options *options, char **words, int count)
{
    (void)words;
    (void)count;
    return show(options, request("config"), "config", print_config);
}

/* Not ready is no error of evapid's, but for a script it is the same. */
int show_ready(const struct options *options, char **words, int count)
{
    int status = EXIT_FINE;
    (void)words;
    (void)count;
    json_t *answer = ask(options, request("ready"), "ready", &status);
    if (answer == NULL)
        return status;
    const bool ready = is_true_at(answer, "ready");
    if (options->json)
        json_dumpf(answer, stdout, JSON_INDENT(2));
    else if (ready)
        fputs("ready", stdout);
    else
        printf("not ready: %s", text_at(answer, "reason"));
    putchar('\n');
    json_decref(answer);
    return ready ? EXIT_FINE : EXIT_ANSWERED_ERROR;
}

int show_names(const struct options *options, char **words, int count)
{
    int status = EXIT_FINE;
    size_t i = 0;
    json_t *item = NULL;
    (void)count;
    const bool tags = strcmp(words[0], "tags") == 0;
    if (!tags && strcmp(words[0], "clients") != 0)
        return fail(EXIT_USAGE, words[0], "it must be commands, tags or clients");
    json_t *answer = ask(options, request(words[0]), words[0], &status);
    json_t *list = json_object_get(answer, words[0]);
    json_array_foreach(list, i, item)
    {
        const json_t *tag = json_object_get(item, "tag");
        const char *name = json_string_value(tag);
        if (!tags)
            printf("%lld\n", (long long)number_at(item, "index"));
        else if (name != NULL && strpbrk(name, "\n\r\t ") == NULL && strlen(name) == json_string_length(tag))
            puts(name);
    }
    json_decref(answer);
    return status;
}
