/* Answers as text in columns, on standard output. They have been made printable. What is not as it should be is shown as well
 * as it can be. */
#ifndef EVAPICTL_STATUS_TEXT_H
#define EVAPICTL_STATUS_TEXT_H

#include <jansson.h>

void print_status(const json_t *answer);
void print_kamailio(const json_t *answer);
void print_listeners(const json_t *answer);
void print_clients(const json_t *answer);
void print_client(const json_t *answer);
void print_tags(const json_t *answer);
void print_stats(const json_t *answer);

#endif
