/* Prints answers as text in columns on standard output. The answers were made printable before. Unexpected content is
 * shown as well as possible. */
#ifndef EVAPICTL_STATUS_TEXT_H
#define EVAPICTL_STATUS_TEXT_H

#include <jansson.h>

void print_config(const json_t *answer);
void print_status(const json_t *answer);
void print_kamailio(const json_t *answer);
void print_listeners(const json_t *answer);
void print_clients(const json_t *answer);
void print_client(const json_t *answer);
void print_tags(const json_t *answer);
void print_stats(const json_t *answer);

#endif
