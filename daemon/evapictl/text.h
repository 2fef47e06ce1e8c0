/* Texts for people: sizes, times, and text from others, without anything that could control a terminal. */
#ifndef EVAPICTL_TEXT_H
#define EVAPICTL_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define SHORT_TEXT 40 /* bytes of a size's or a span's text */

/* Bytes of the control character at the text's start; 0: none. U+0080 to U+009F have two. */
size_t control_character(const char *text, size_t length);

/* Write bytes; control characters and bytes that are not UTF-8 appear as \xNN. */
void print_plain(FILE *out, const char *bytes, size_t length);

/* Make every text in value printable in the same way. An unprintable key is not evapid's, and is removed. */
void make_printable(json_t *value);

/* Members of an object: 0, or "-", if missing. */
json_int_t number_at(const json_t *object, const char *key);
const char *text_at(const json_t *object, const char *key);
bool is_true_at(const json_t *object, const char *key);

/* "0", "812", "3.4K", "12M": at most four digits. */
const char *show_size(json_int_t bytes, char out[SHORT_TEXT]);

/* "12 s", "5 min", "3 h 20 min", "4 d 2 h". */
const char *show_span(json_int_t seconds, char out[SHORT_TEXT]);

/* How long ago this time, given by evapid, was. */
const char *show_since(const char *since, char out[SHORT_TEXT]);

/* "slow 12, closed 3", or "-". The caller frees it. */
char *show_dropped(const json_t *dropped);

/* Memory is short: print that and end. */
_Noreturn void out_of_memory(void);

#endif
