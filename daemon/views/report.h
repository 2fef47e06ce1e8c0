/* A report: an answer about as many clients or tags as there are, put together a slice at a time.
 *
 *     {"version":...,"clients":[   item , item , item   ],"totals":{...}}
 *           head                     a slice in a turn      tail
 *
 * What it is to tell of is chosen when it is begun, and head and tail are of that moment. Each item is of the moment at which it is
 * written. A client that goes meanwhile is left out, one that comes is not in it. What a slice takes of the processor is
 * bounded, and nothing is kept of what has been taken, so that an answer costs the same memory however long it is. */
#ifndef EVAPID_REPORT_H
#define EVAPID_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "views/status.h"

struct report;

/* Begin one: the status; the clients of a selection; the tags that are most used, up to limit. NULL: there is no memory. */
struct report *report_status(const struct status_subject *subject);
struct report *report_clients(const struct selection *selection, const struct bus *bus);
struct report *report_tags(const struct bus *bus, size_t limit);

/* Write the next slice; the last one ends with a line's end. The caller frees it. NULL: there is no memory. */
char *report_write(struct report *report, size_t *length);

/* Has the last one been written? */
bool report_is_over(const struct report *report);

void report_close(struct report *report);

#endif
