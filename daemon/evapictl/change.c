/* Commands that change something in evapid, and the one that checks a file. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "evapictl/ask.h"
#include "evapictl/choice.h"
#include "evapictl/text.h"

static void print_answer(const json_t *answer)
{
    json_dumpf(answer, stdout, JSON_INDENT(2));
    putchar('\n');
}

/* Ask for the change, then print the answer as JSON, or the text `done`. */
static int change(const struct options *options, json_t *request, const char *key, const char *done)
{
    int status = EXIT_FINE;
    json_t *answer = ask(options, request, key, &status);
    if (answer == NULL)
        return status;
    if (options->json) {
        print_answer(answer);
    } else if (done != NULL) {
        puts(done);
    } else {
        make_printable(answer);
        puts(text_at(json_object_get(answer, key), "level"));
    }
    json_decref(answer);
    return EXIT_FINE;
}

int change_tag(const struct options *options, char **words, int count)
{
    char done[64];
    if (count == 1)
        return choice_tag(options, words[0]);
    json_t *request =
        json_pack("{s:s, s:I, s:s}", "command", "tag", "client", (json_int_t)atoll(words[0]), "tag", words[1]);
    if (request == NULL)
        return fail(EXIT_USAGE, "tag", "it must be UTF-8");
    snprintf(done, sizeof(done), "client %s %s", words[0], words[1][0] != '\0' ? "has the tag" : "has no tag");
    return change(options, request, "tagged", done);
}

int change_close(const struct options *options, char **words, int count)
{
    char done[96];
    if (count == 0)
        return choice_close(options);
    snprintf(done, sizeof(done), "client %s is closed after it has received what is queued", words[0]);
    return change(options, json_pack("{s:s, s:I}", "command", "close", "client", (json_int_t)atoll(words[0])), "closed",
                  done);
}

int change_forget(const struct options *options, char **words, int count)
{
    (void)count;
    json_t *request = json_pack("{s:s, s:s}", "command", "forget", "tag", words[0]);
    if (request == NULL)
        return fail(EXIT_USAGE, "tag", "it must be UTF-8");
    return change(options, request, "forgotten", "the tag is kept no more, and what waited for it is dropped");
}

int change_log(const struct options *options, char **words, int count)
{
    json_t *request =
        count > 0 ? json_pack("{s:s, s:s}", "command", "log", "level", words[0]) : json_pack("{s:s}", "command", "log");
    return change(options, request, "log", NULL);
}

/* keys: NULL from an evapid that does not say which have changed. */
static void print_changed(const json_t *keys)
{
    size_t i = 0;
    json_t *key = NULL;
    if (keys == NULL)
        return;
    fputs(json_array_size(keys) == 0 ? "changed: no key" : "changed: ", stdout);
    json_array_foreach(keys, i, key)
    {
        fputs(i > 0 ? ", " : "", stdout);
        fputs(json_is_string(key) ? json_string_value(key) : "-", stdout);
    }
    putchar('\n');
}

/* Prints what evapid has reloaded, and what that has changed. */
int change_reload(const struct options *options, char **words, int count)
{
    int status = EXIT_FINE;
    (void)words;
    (void)count;
    json_t *answer = ask(options, json_pack("{s:s}", "command", "reload"), "reload", &status);
    if (answer == NULL)
        return status;
    const json_t *outcome = json_object_get(answer, "reload");
    if (options->json) {
        print_answer(answer);
    } else {
        make_printable(answer);
        printf("reloaded: listeners added %lld, removed %lld; clients closed %lld\n",
               (long long)number_at(outcome, "listeners_added"), (long long)number_at(outcome, "listeners_removed"),
               (long long)number_at(outcome, "clients_closed"));
        print_changed(json_object_get(outcome, "changed"));
    }
    json_decref(answer);
    return EXIT_FINE;
}

/* Says of the file what evapid -t says, without an evapid. */
int check_run(const struct options *options, char **words, int count)
{
    struct config config;
    char error[CONFIG_ERROR];
    (void)count;
    const bool good = config_read(&config, words[0], error);
    if (options->json) {
        json_t *answer = good ? json_pack("{s:s, s:b}", "file", words[0], "good", true)
                              : json_pack("{s:s, s:b, s:s}", "file", words[0], "good", false, "error", error);
        print_answer(answer);
        json_decref(answer);
    } else if (good) {
        printf("%s: good\n", words[0]);
    } else {
        print_plain(stderr, error, strlen(error));
        fputc('\n', stderr);
    }
    if (good)
        config_free(&config);
    return good ? EXIT_FINE : EXIT_ANSWERED_ERROR;
}
