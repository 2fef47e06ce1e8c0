/* evapid's log in the fuzz targets: lines are formatted, so all their arguments are read, and discarded. */
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"

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
