/* Builds the answers for the status page. */
#include "web/console.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kamailio/progress.h"
#include "views/metrics.h"
#include "views/report.h"

#define CONSOLE_TEXT(number) CONSOLE_TEXT_OF(number)
#define CONSOLE_TEXT_OF(number) #number

/* ---- parameters --------------------------------------------------------------------------------------------------- */

/* NULL: the request does not have it. */
static const char *parameter(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, name);
}

/* A number from 0 to most; by_default if the request does not have it. False: it is no such number. */
static bool read_number(struct MHD_Connection *connection, const char *name, uint64_t by_default, uint64_t most,
                        uint64_t *number)
{
    const char *text = parameter(connection, name);
    char *end = NULL;
    *number = by_default;
    if (text == NULL)
        return true;
    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *number <= most;
}

static const char *read_limit(struct MHD_Connection *connection, size_t *limit)
{
    uint64_t number = 0;
    const bool good = read_number(connection, "limit", CONSOLE_ITEMS, CONSOLE_ITEMS_MAX, &number);
    *limit = (size_t)number;
    return good ? NULL : "limit must be a number from 0 to " CONSOLE_TEXT(CONSOLE_ITEMS_MAX);
}

static const char *read_selection(struct MHD_Connection *connection, struct selection *selection)
{
    uint64_t idle_s = 0;
    const char *tag = parameter(connection, "tag");
    const char *slow = parameter(connection, "slow");
    struct selection_words words = { .tag = tag,
                                     .tag_length = tag != NULL ? strlen(tag) : 0,
                                     .address = parameter(connection, "address"),
                                     .state = parameter(connection, "state"),
                                     .sort = parameter(connection, "sort"),
                                     .slow = slow != NULL && strcmp(slow, "1") == 0 };
    if (!read_number(connection, "idle", 0, INT32_MAX, &idle_s))
        return "idle must be a number of seconds";
    words.idle_s = (int64_t)idle_s;
    const char *why = selection_read(selection, &words);
    return why != NULL ? why : read_limit(connection, &selection->limit);
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

/* The whole report at once; takes it. */
static char *write_all(struct report *report, size_t *length)
{
    char *text = NULL;
    size_t size = 0;
    while (report != NULL && !report_is_over(report)) {
        char *slice = report_write(report, length);
        char *longer = slice != NULL ? realloc(text, size + *length + 1) : NULL;
        if (longer != NULL)
            memcpy(longer + size, slice, *length);
        free(slice);
        if (longer == NULL) {
            free(text);
            text = NULL;
            break;
        }
        text = longer;
        size += *length;
    }
    if (report != NULL)
        report_close(report);
    *length = size;
    return text;
}

char *console_status(struct console *console, struct MHD_Connection *connection, size_t *length, const char **why)
{
    (void)connection;
    (void)why;
    progress_catch_up(console->subject->kamailio);
    const char *objection = metrics_objection(console->subject);
    json_t *status = status_describe(console->subject);
    json_t *more = json_pack("{s:o, s:b, s:s?, s:o}", "totals", describe_totals(console->subject), "ready",
                             objection == NULL, "not_ready", objection, "history", history_describe(&console->history));
    char *text = NULL;
    if (status != NULL && more != NULL && json_object_update(status, more) == 0)
        text = json_dumps(status, JSON_COMPACT);
    json_decref(status);
    json_decref(more);
    *length = text != NULL ? strlen(text) : 0;
    return text;
}

char *console_clients(struct console *console, struct MHD_Connection *connection, size_t *length, const char **why)
{
    struct selection selection;
    *why = read_selection(connection, &selection);
    if (*why != NULL)
        return NULL;
    progress_catch_up(console->subject->kamailio);
    return write_all(report_clients(&selection, console->subject->bus), length);
}

char *console_tags(struct console *console, struct MHD_Connection *connection, size_t *length, const char **why)
{
    size_t limit = 0;
    *why = read_limit(connection, &limit);
    if (*why != NULL)
        return NULL;
    progress_catch_up(console->subject->kamailio);
    return write_all(report_tags(console->subject->bus, limit), length);
}

char *console_tail(struct console *console, struct MHD_Connection *connection, size_t *length, const char **why)
{
    uint64_t from = 0;
    if (!read_number(connection, "from", 0, UINT64_MAX, &from)) {
        *why = "from must be a number";
        return NULL;
    }
    struct bus *bus = console->subject->bus;
    return recent_describe(&console->recent, bus, from, uv_now(bus->loop), length);
}

/* ---- life ---------------------------------------------------------------------------------------------------------- */

void console_tick(struct console *console)
{
    const struct bus *bus = console->subject->bus;
    history_note(&console->history, bus, uv_now(bus->loop));
    recent_tick(&console->recent, uv_now(bus->loop));
}

void console_end(struct console *console)
{
    recent_end(&console->recent);
}
