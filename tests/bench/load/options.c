#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS_MAX = 32 };

static bool usage(const char *command, const struct option_spec *specs)
{
    static const char *const shapes[] = { " TEXT", " N", "" };
    fprintf(stderr, "Options of %s:\n", command);
    for (; specs->name != NULL; specs++)
        fprintf(stderr, "  --%s%s  %s%s\n", specs->name, shapes[specs->kind], specs->help,
                specs->needed ? " (needed)" : "");
    return false;
}

static bool number_read(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0' && *text != '-';
}

static int spec_find(const struct option_spec *specs, const char *word)
{
    if (strncmp(word, "--", 2) != 0)
        return -1;
    for (int i = 0; specs[i].name != NULL && i < OPTIONS_MAX; i++)
        if (strcmp(specs[i].name, word + 2) == 0)
            return i;
    return -1;
}

/* Store text. It is NULL if there is no further word. */
static bool spec_store(const struct option_spec *spec, const char *text)
{
    if (spec->kind == OPTION_FLAG)
        *(bool *)spec->value = true;
    else if (text == NULL)
        return false;
    else if (spec->kind == OPTION_TEXT)
        *(const char **)spec->value = text;
    else
        return number_read(text, spec->value);
    return true;
}

bool options_read(int argc, char **argv, const struct option_spec *specs)
{
    bool given[OPTIONS_MAX] = { false };
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        const int at = spec_find(specs, word);
        if (at < 0) {
            fprintf(stderr, "%s: unknown option %s\n", argv[0], word);
            return usage(argv[0], specs);
        }
        if (specs[at].kind != OPTION_FLAG)
            i++;
        if (!spec_store(&specs[at], i < argc ? argv[i] : NULL)) {
            fprintf(stderr, "%s: %s: a value is missing or malformed\n", argv[0], word);
            return usage(argv[0], specs);
        }
        given[at] = true;
    }
    for (int i = 0; specs[i].name != NULL && i < OPTIONS_MAX; i++)
        if (specs[i].needed && !given[i]) {
            fprintf(stderr, "%s: --%s is needed\n", argv[0], specs[i].name);
            return usage(argv[0], specs);
        }
    return true;
}
