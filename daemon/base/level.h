/* The levels of the log, the most important first, and which of them are written. */
#ifndef EVAPID_LEVEL_H
#define EVAPID_LEVEL_H

#include <stdbool.h>

enum log_level { LEVEL_ERROR, LEVEL_WARNING, LEVEL_NOTICE, LEVEL_INFO, LEVEL_DEBUG };

/* Get or set the level: lines of this level and of more important ones are written. */
enum log_level log_level(void);
void log_set_level(enum log_level level);

const char *log_level_name(enum log_level level);

/* The level called "error", "warning", "notice", "info" or "debug". False if the name is none of these. */
bool log_level_find(const char *name, enum log_level *level);

#endif
