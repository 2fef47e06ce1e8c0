/* Reads a report to its end, as its requester does. */
#ifndef EVAPID_TESTS_REPORT_RIG_H
#define EVAPID_TESTS_REPORT_RIG_H

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "views/report.h"

/* Its content, and in how many slices it came; NULL: memory was short. Closes it. */
static inline json_t *read_report(struct report *report, unsigned *slices)
{
    char *text = NULL;
    size_t length = 0;
    bool failed = report == NULL;
    *slices = 0;
    while (!failed && !report_is_over(report)) {
        size_t more = 0;
        char *slice = report_write(report, &more);
        char *longer = slice != NULL ? realloc(text, length + more) : NULL;
        failed = longer == NULL;
        if (!failed) {
            memcpy(longer + length, slice, more);
            text = longer;
            length += more;
            (*slices)++;
        }
        free(slice);
    }
    report_close(report);
    json_malloc_t own_malloc = NULL;
    json_free_t own_free = NULL;
    json_get_alloc_funcs(&own_malloc, &own_free);
    json_set_alloc_funcs(malloc, free); /* the reader has memory */
    json_t *read = failed ? NULL : json_loadb(text, length, 0, NULL);
    json_set_alloc_funcs(own_malloc, own_free);
    free(text);
    return read;
}

#endif
