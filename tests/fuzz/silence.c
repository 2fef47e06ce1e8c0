/* evapid's log as the fuzz targets have it: lines are put together, with every byte that they are about, and dropped. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "log.h"

static char line[2048];

void log_line(enum log_level level, const char *subject, const char *format, ...)
{
    va_list args;
    (void)level;
    (void)subject;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): it is not */
    va_end(args);
}

void log_limited(struct log_limit *limit, enum log_level level, const char *subject, const char *format, ...)
{
    va_list args;
    (void)limit;
    (void)level;
    (void)subject;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args); /* NOLINT(clang-analyzer-valist.Uninitialized): it is not */
    va_end(args);
}

/* The level counts for nothing here. */
static enum log_level level_now = LEVEL_INFO;
static const char *const names[] = { "error", "warning", "notice", "info", "debug" };

enum log_level log_level(void)
{
    return level_now;
}

void log_set_level(enum log_level level)
{
    level_now = level;
}

const char *log_level_name(enum log_level level)
{
    return names[level];
}

bool log_level_find(const char *name, enum log_level *level)
{
    for (int i = LEVEL_ERROR; i <= LEVEL_DEBUG; i++)
        if (strcmp(name, names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    return false;
}
