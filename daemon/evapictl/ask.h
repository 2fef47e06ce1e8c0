/* A conversation with evapid on its control socket. */
#ifndef EVAPICTL_ASK_H
#define EVAPICTL_ASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "evapictl/evapictl.h"

struct line_to {
    const char *path;
    int fd;      /* -1: none */
    char *bytes; /* received; the first `used` of them have been read */
    size_t used, length, room;
};

/* Connect. Returns EXIT_FINE, or the exit status after printing what is wrong. */
int line_open(struct line_to *line, const char *path);
void line_close(struct line_to *line);

/* From now on wait for evapid this many seconds at a time, not ten; 0: forever. */
void line_set_patience(const struct line_to *line, int seconds);

/* Read what has arrived. -1 with errno if nothing can arrive any more, or nothing arrived in time. */
ssize_t line_fill(struct line_to *line);

/* The next whole received line, without its newline; NULL: there is none yet. Valid until line_fill. */
const char *line_next(struct line_to *line, size_t *length);

/* Send a request (takes the reference) and wait for its answer. If there is none, or evapid refuses, prints what is
 * wrong, sets *status to the exit status and returns NULL. An answer without this key counts as none. */
json_t *line_ask(struct line_to *line, json_t *request, const char *key, int *status);

/* The same, on a connection of its own. */
json_t *ask(const struct options *options, json_t *request, const char *key, int *status);

/* Report a line that is not the expected answer. Returns the exit status. answer NULL: it is not JSON. */
int report_error(const struct line_to *line, json_t *answer);

/* Report that the connection failed with this errno. */
int report_broken(const struct line_to *line, int error);

/* Print what is wrong, and with what. Returns status. */
int fail(int status, const char *what, const char *why);

/* From now on fail writes there, not to standard error; NULL: to standard error again. */
void fail_into(char *text, size_t room);

/* Parse an answer; NULL: not JSON, or not an object. */
json_t *read_answer(const char *line, size_t length);

#endif
