/* JSON for people: indented, and perhaps in colours. */
#ifndef EVAPICTL_JSON_TEXT_H
#define EVAPICTL_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Is the text one JSON object or array, and nothing else? */
bool is_json(const char *text, size_t length);

/* Print such a text to out, one member or item a line, indented by margin except for the first line. The content stays
 * as it was: numbers, order and duplicate members. */
void print_json(FILE *out, const char *text, size_t length, unsigned margin, bool colours);

#endif
