/* Texts for people: sizes, times, and what others have written, without anything in it that would drive a terminal. */
#ifndef EVAPICTL_TEXT_H
#define EVAPICTL_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define SHORT_TEXT 40 /* bytes of a size or a span */

/* Bytes of the control character that text begins with, 0: it begins with none. U+0080 to U+009F take two. */
size_t control_character(const char *text, size_t length);

/* Write bytes with control characters, and what is not UTF-8, as \xNN. */
void print_plain(FILE *out, const char *bytes, size_t length);

/* Make every text in value printable likewise; a key that is not is none of evapid's, and goes. */
void make_printable(json_t *value);

/* Members of an object: 0, or "-", when there is none. */
json_int_t number_at(const json_t *object, const char *key);
const char *text_at(const json_t *object, const char *key);
bool is_true_at(const json_t *object, const char *key);

/* "0", "812", "3.4K", "12M": at most four digits. */
const char *show_size(json_int_t bytes, char out[SHORT_TEXT]);

/* "12 s", "5 min", "3 h 20 min", "4 d 2 h". */
const char *show_span(json_int_t seconds, char out[SHORT_TEXT]);

/* How long ago a time of evapid's was. */
const char *show_since(const char *since, char out[SHORT_TEXT]);

/* "slow 12, closed 3", or "-"; the caller's to free. */
char *show_dropped(const json_t *dropped);

/* Memory was needed, and there is none: say so and end. */
_Noreturn void out_of_memory(void);

#endif
