/* A report: an answer about any number of clients, tags or keys of the configuration, written a slice at a time.
 *
 *     {"version":...,"clients":[   item , item , item   ],"totals":{...}}
 *           head                     a slice in a turn      tail
 *
 * Its items are chosen when it is begun, and head and tail show that moment. Each item shows the moment at which it is
 * written. A client that leaves meanwhile is left out; one that joins is not in it. The processor time of a slice is
 * bounded. Written slices are not kept, so an answer costs the same memory however long it is. */
#ifndef EVAPID_REPORT_H
#define EVAPID_REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "views/status.h"

struct report;

/* Begin a report of the status; of the clients in a selection; of the most used tags, up to limit; or of what is
 * configured. NULL: memory is short. */
struct report *report_status(const struct status_subject *subject);
struct report *report_clients(const struct selection *selection, const struct bus *bus);
struct report *report_tags(const struct bus *bus, size_t limit);
struct report *report_config(const struct config *config);

/* Write the next slice; the last one ends with a newline. The caller frees it. NULL: memory is short. */
char *report_write(struct report *report, size_t *length);

/* Has the last slice been written? */
bool report_is_over(const struct report *report);

void report_close(struct report *report);

#endif
