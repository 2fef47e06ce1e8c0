/* Lines on standard error: their form, their level, and how many of each kind. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/outlet.h"

#define SUBJECT "log"
#define TEXT_MAX 1024                 /* a longer text is cut */
#define LINE_MAX_BYTES (TEXT_MAX * 3) /* with its prefix */
#define END_MS 200U                   /* the longest wait for a slow reader at the end */

static const char *const journal_prefixes[] = { "<3>", "<4>", "<5>", "<6>", "<7>" };

static bool journal;
static struct outlet outlet;
static struct log_limit *limits; /* those that have withheld a line */

/* Is our standard error the stream that the journal reads? JOURNAL_STREAM names that stream's device and inode. */
static bool journal_reads_stderr(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device = 0;
    unsigned long long inode = 0;
    struct stat err;
    if (stream == NULL || sscanf(stream, "%llu:%llu", &device, &inode) != 2 || fstat(STDERR_FILENO, &err) != 0)
        return false;
    return device == (unsigned long long)err.st_dev && inode == (unsigned long long)err.st_ino;
}

static void finish(void)
{
    log_flush();
    outlet_close(&outlet, END_MS);
}

void log_open(enum log_level level)
{
    static bool finishes;
    log_set_level(level);
    journal = journal_reads_stderr();
    outlet_open(&outlet, STDERR_FILENO);
    if (!finishes)
        finishes = atexit(finish) == 0;
}

/* Copy text to out with every byte that is not printable ASCII as \xNN. */
static void make_printable(char *out, size_t room, const char *text)
{
    size_t n = 0;
    for (; *text != '\0' && n + 5 < room; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c >= 0x7f)
            n += (size_t)snprintf(out + n, room - n, "\\x%02x", c);
        else
            out[n++] = (char)c;
    }
    out[n] = '\0';
}

/* Write the whole line into out, which has LINE_MAX_BYTES. Returns its bytes. */
static size_t compose(char *out, enum log_level level, const char *subject, const char *text)
{
    if (journal)
        return (size_t)snprintf(out, LINE_MAX_BYTES, "%s%.256s: %s\n", journal_prefixes[level], subject, text);
    const uint64_t now_ms = clock_wall_ms();
    const time_t now_s = (time_t)(now_ms / 1000);
    struct tm utc;
    char time[32];
    gmtime_r(&now_s, &utc);
    strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%S", &utc);
    return (size_t)snprintf(out, LINE_MAX_BYTES, "%s.%03uZ %s %.256s: %s\n", time, (unsigned)(now_ms % 1000),
                            log_level_name(level), subject, text);
}

/* Write a line about lines that are missing before it. It is written at every log level. */
__attribute__((format(printf, 3, 4))) static void log_missing(enum log_level level, const char *subject,
                                                              const char *format, ...)
{
    char text[TEXT_MAX];
    char line[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    outlet_tell(&outlet, line, compose(line, level, subject, text));
}

static void tell_missed(void)
{
    if (outlet.missed > 0)
        log_missing(LEVEL_WARNING, SUBJECT, "%llu lines were not written: nobody took them",
                    (unsigned long long)outlet.missed);
}

static void put(const char *line, size_t length)
{
    tell_missed();
    outlet_put(&outlet, line, length);
}

static void write_line(enum log_level level, const char *subject, const char *format, va_list args)
{
    char raw[TEXT_MAX];
    char text[TEXT_MAX * 2];
    char line[LINE_MAX_BYTES];
    vsnprintf(raw, sizeof(raw), format, args);
    make_printable(text, sizeof(text), raw);
    put(line, compose(line, level, subject, text));
}

void log_line(enum log_level level, const char *subject, const char *format, ...)
{
    if (level > log_level())
        return;
    va_list args;
    va_start(args, format);
    write_line(level, subject, format, args);
    va_end(args);
}

void log_bare(enum log_level level, const char *text)
{
    char shown[TEXT_MAX * 2];
    char line[LINE_MAX_BYTES];
    make_printable(shown, sizeof(shown), text);
    put(line, (size_t)snprintf(line, sizeof(line), "%s%s\n", journal ? journal_prefixes[level] : "", shown));
}

bool log_flush(void)
{
    if (outlet.used == 0 && outlet.missed == 0)
        return false;
    const size_t written = outlet_flush(&outlet);
    tell_missed();
    return written > 0 && (outlet.used > 0 || outlet.missed > 0);
}

static void write_count(struct log_limit *limit)
{
    log_line(limit->level, limit->kind, "%u more such lines in %u s were not written", limit->withheld,
             LOG_WINDOW_MS / 1000);
    limit->withheld = 0;
}

void log_limited(struct log_limit *limit, enum log_level level, const char *subject, const char *format, ...)
{
    if (level > log_level())
        return;
    const uint64_t now = clock_monotonic_ms();
    if (limit->withheld == 0 && now - limit->window_ms >= LOG_WINDOW_MS) {
        limit->window_ms = now;
        limit->lines = 0;
    }
    if (limit->lines == LOG_BURST) {
        if (limit->withheld++ == 0) {
            limit->level = level;
            limit->next = limits;
            limits = limit;
        }
        return;
    }
    limit->lines++;
    va_list args;
    va_start(args, format);
    write_line(level, subject, format, args);
    va_end(args);
}

void log_tick(bool all)
{
    log_flush();
    const uint64_t now = clock_monotonic_ms();
    struct log_limit **link = &limits;
    while (*link != NULL) {
        struct log_limit *limit = *link;
        if (!all && now - limit->window_ms < LOG_WINDOW_MS) {
            link = &limit->next;
            continue;
        }
        *link = limit->next;
        write_count(limit);
    }
}
