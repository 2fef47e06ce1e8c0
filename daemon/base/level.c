/* Names of the levels, and the current one. */
#include "base/level.h"

#include <string.h>

static const char *const level_names[] = { "error", "warning", "notice", "info", "debug" };
static enum log_level most = LEVEL_INFO;

enum log_level log_level(void)
{
    return most;
}

void log_set_level(enum log_level level)
{
    most = level;
}

const char *log_level_name(enum log_level level)
{
    return level_names[level];
}

bool log_level_find(const char *name, enum log_level *level)
{
    for (unsigned i = 0; i < sizeof(level_names) / sizeof(*level_names); i++)
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    return false;
}
