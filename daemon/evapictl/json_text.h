/* JSON as people like to read it: indented, and perhaps in colours. */
#ifndef EVAPICTL_JSON_TEXT_H
#define EVAPICTL_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Is the text a JSON object or array, and nothing else? */
bool is_json(const char *text, size_t length);

/* Print such a text to out, a member or item on a line, all but the first indented by margin. What stands in it is as it was:
 * numbers, order and members that are there twice. */
void print_json(FILE *out, const char *text, size_t length, unsigned margin, bool colours);

#endif
