/* A conversation with evapid at its control socket. */
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
    char *bytes; /* that have come; the first used of them have been read */
    size_t used, length, room;
};

/* Connect. EXIT_FINE, or the exit status: what is wrong has been said. */
int line_open(struct line_to *line, const char *path);
void line_close(struct line_to *line);

/* Wait for evapid so long at a time from now on, not ten seconds; 0: for ever. */
void line_set_patience(const struct line_to *line, int seconds);

/* Read what has come; -1 with errno when nothing can come any more, or did in time. */
ssize_t line_fill(struct line_to *line);

/* The next whole line of what has come, without its newline; NULL: there is none yet. It stays valid until line_fill. */
const char *line_next(struct line_to *line, size_t *length);

/* Send a request (the reference is taken) and wait for its answer. NULL, with the exit status in *status: there was none, and
 * what is wrong has been said; or evapid has refused, which has been too. An answer that has no such key is none. */
json_t *line_ask(struct line_to *line, json_t *request, const char *key, int *status);

/* Likewise, on a connection of its own. */
json_t *ask(const struct options *options, json_t *request, const char *key, int *status);

/* What came instead of an answer, in a line: say it, and which exit status it is. answer NULL: it is no JSON. */
int report_error(const struct line_to *line, json_t *answer);

/* The connection has failed with that errno: say so. */
int report_broken(const struct line_to *line, int error);

/* Say that something is wrong with what is named. Returns status. */
int fail(int status, const char *what, const char *why);

/* What fail says goes there from now on, not to standard error; NULL: to standard error again. */
void fail_into(char *text, size_t room);

/* Read an answer; NULL: it is not JSON, or no object. */
json_t *read_answer(const char *line, size_t length);

#endif
