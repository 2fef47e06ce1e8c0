/* What the tests of the configuration share: files in a directory of their own, and errors with their place. */
#ifndef EVAPID_TEST_CONFIG_RIG_H
#define EVAPID_TEST_CONFIG_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/config.h"

/* ---- files, in a directory of our own ------------------------------------------------------------------------------ */

#define FILE_NAME "e.json"

static char directory[] = "/tmp/evapid-config-XXXXXX";

static inline int enter_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) == NULL || chdir(directory) != 0;
}

static inline int remove_directory(void **state)
{
    (void)state;
    unlink(FILE_NAME);
    return chdir("/") != 0 || rmdir(directory) != 0;
}

static inline void write_file(const char *text, size_t length)
{
    FILE *file = fopen(FILE_NAME, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

/* Read a file of this text. The caller frees the result. */
static inline struct config read_text(const char *text)
{
    struct config config;
    char error[CONFIG_ERROR] = "";
    memset(&config, 0x5a, sizeof(config));
    write_file(text, strlen(text));
    if (!config_read(&config, FILE_NAME, error))
        fail_msg("%s: %s", text, error);
    return config;
}

/* Returns the error of a file of this text, or "" if it is valid. A ^ in the text marks the place that the error must
 * name; it is not part of the file. NULL: the error names no line. */
static inline const char *error_of(const char *text, unsigned *line, unsigned *column)
{
    static char error[CONFIG_ERROR];
    char file[8192];
    size_t length = 0;
    struct config config;
    *line = *column = 0;
    unsigned at_line = 1;
    unsigned at_column = 1;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '^') {
            *line = at_line;
            *column = at_column;
            continue;
        }
        assert_true(length < sizeof(file));
        file[length++] = *at;
        at_column++;
        if (*at == '\n') {
            at_line++;
            at_column = 1;
        }
    }
    write_file(file, length);
    error[0] = '\0';
    if (config_read(&config, FILE_NAME, error)) {
        config_free(&config);
        return "";
    }
    assert_null(config.listeners);
    assert_int_equal(config.listener_count, 0);
    return error;
}

struct bad {
    const char *text;  /* ^ marks the place */
    const char *error; /* the rest of the error, after FILE:LINE:COLUMN: */
};

static inline void assert_errors(const struct bad *bad, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char expected[CONFIG_ERROR];
        unsigned line;
        unsigned column;
        const char *error = error_of(bad[i].text, &line, &column);
        snprintf(expected, sizeof(expected), FILE_NAME ":%u:%u: %s", line, column, bad[i].error);
        if (strcmp(error, expected) != 0)
            fail_msg("%s\n  gives    %s\n  expected %s", bad[i].text, error, expected);
    }
}

#define ASSERT_ERRORS(table) assert_errors(table, sizeof(table) / sizeof(*(table)))

#endif
