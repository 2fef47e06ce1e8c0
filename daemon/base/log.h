/* The log: one line on standard error for each thing that an operator may need to know.
 *
 * A line is time, level, subject and text: "2026-11-23T08:19:27.123Z warning client 12: ...". If the systemd journal
 * reads standard error (JOURNAL_STREAM, systemd.exec(5)), the line begins with the priority prefix of sd-daemon(3) and
 * has no time and no level, because the journal adds its own. Bytes that are not printable ASCII are shown as \xNN, so
 * that nothing from the network can forge a line or control a terminal.
 *
 * evapid never waits for the reader of standard error. Lines that it does not read at once wait in memory (outlet.h).
 * Lines that do not fit there are counted, and a line reports their number as soon as there is room. */
#ifndef EVAPID_LOG_H
#define EVAPID_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/level.h"

/* A limit for lines that the network can cause: LOG_BURST lines within LOG_WINDOW_MS are written, the rest are only
 * counted, and the count is written when the window ends. There is one such struct for each kind of line. Only log.c
 * writes its fields, except kind. */
struct log_limit {
    uint64_t window_ms; /* start of the window; 0: there is none */
    unsigned lines;     /* lines written in the window */
    unsigned withheld;
    enum log_level level;
    const char *kind; /* what the lines are about, for the count; set by the owner */
    struct log_limit *next;
};

#define LOG_BURST 10U
#define LOG_WINDOW_MS 10000U

/* Write lines of this level and of more important ones. Finds out what standard error is and who reads it. At the end
 * of the process, waiting lines are written for up to 200 ms. */
void log_open(enum log_level level);

/* Write a line about subject ("listener 127.0.0.1:8448"). */
__attribute__((format(printf, 3, 4))) void log_line(enum log_level level, const char *subject, const char *format, ...);

/* Write a text that is a complete line, like "FILE:LINE:COLUMN: ...", without time, level and subject. */
void log_bare(enum log_level level, const char *text);

/* As log_line, for a line that can come in a flood. */
__attribute__((format(printf, 4, 5))) void log_limited(struct log_limit *limit, enum log_level level,
                                                       const char *subject, const char *format, ...);

/* Write waiting lines, as many as the reader accepts. True: it accepted some but not all, so try again soon. */
bool log_flush(void);

/* Write the counts of windows that have ended. Call it once a second and at the end. all: also of windows that have not
 * ended. */
void log_tick(bool all);

#endif
