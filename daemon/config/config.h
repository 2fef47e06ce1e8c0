/* The configuration: one JSON file, in which #, // and block comments count as white space. docs/configuration.md and
 * the table in keys.c list every key, with range and default. */
#ifndef EVAPID_CONFIG_H
#define EVAPID_CONFIG_H

#include "config/config_type.h"

#define CONFIG_ERROR 1024 /* bytes of an error's text */

/* Read the file, whose path must outlive the configuration. False: error says "FILE:LINE:COLUMN: KEY: what is wrong", and
 * *config holds nothing to free. */
bool config_read(struct config *config, const char *path, char error[CONFIG_ERROR]);

void config_free(struct config *config);

#endif
