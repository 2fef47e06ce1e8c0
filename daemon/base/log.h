/* The log: one line for each thing an operator could need to know, on standard error.
 *
 * A line is time, level, subject and text: "2026-11-23T08:19:27.123Z warning client 12: ...". When the systemd journal
 * reads standard error (JOURNAL_STREAM, systemd.exec(5)) the line begins with the priority prefix of sd-daemon(3) and
 * has no time and no level, because the journal keeps its own. Bytes that are not printable ASCII are shown
 * as \xNN, so that nothing from the network can forge a line or drive a terminal.
 *
 * evapid never waits for who reads standard error. Lines that are not taken at once wait in memory (outlet.h); those that do
 * not fit there are counted, and a line says how many they were as soon as there is room. */
#ifndef EVAPID_LOG_H
#define EVAPID_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/level.h"

/* For lines that the network can cause: LOG_BURST of them within LOG_WINDOW_MS, then only a count of the rest when the
 * window ends. One such struct stands for each kind of line; all of it is log.c's. */
struct log_limit {
    uint64_t window_ms; /* when the window began, 0: none */
    unsigned lines;     /* written in it */
    unsigned withheld;
    enum log_level level;
    const char *kind; /* what the lines are about, for the count; set by the owner */
    struct log_limit *next;
};

#define LOG_BURST 10U
#define LOG_WINDOW_MS 10000U

/* Write lines of this level and the more important ones; finds out what standard error is, and who reads it. At the end of
 * the process what waits is written, as far as it is taken within 200 ms. */
void log_open(enum log_level level);

/* Write a line about subject ("listener 127.0.0.1:8448"). */
__attribute__((format(printf, 3, 4))) void log_line(enum log_level level, const char *subject, const char *format, ...);

/* Write a text that is a whole line already, as "FILE:LINE:COLUMN: ...": no time, no level, no subject in front of it. */
void log_bare(enum log_level level, const char *text);

/* As log_line, for a line that can come in a flood. */
__attribute__((format(printf, 4, 5))) void log_limited(struct log_limit *limit, enum log_level level,
                                                       const char *subject, const char *format, ...);

/* Write lines that wait, as far as they are taken. True: some were, and not all, so that it is worth to ask again soon. */
bool log_flush(void);

/* Once a second and at the end: write the counts of windows that are over. all: also of those that are not. */
void log_tick(bool all);

#endif
