/* A choice: the clients that the options of a command choose. */
#ifndef EVAPICTL_CHOICE_H
#define EVAPICTL_CHOICE_H

#include <jansson.h>
#include <stdbool.h>

#include "evapictl/evapictl.h"

/* Is there an option that chooses clients? */
bool choice_is_made(const struct options *options);

/* The request for the clients that the options choose. */
json_t *choice_request(const struct options *options);

/* Close the chosen clients, or give them a tag. Without --yes, only say how many they are. Return the exit status, after
 * printing what has been done or is wrong. */
int choice_close(const struct options *options);
int choice_tag(const struct options *options, const char *tag);

#endif
