/* Builds the answers for the status page. */
#include "web/console.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kamailio/progress.h"
#include "views/metrics.h"
#include "views/report.h"

/* ---- parameters --------------------------------------------------------------------------------------------------- */

/* A number from 0 to most; by_default if the request does not have it. False: it is no such number. */
static bool read_number(console_parameter *parameter, void *request, const char *name, uint64_t by_default,
                        uint64_t most, uint64_t *number)
{
    const char *text = parameter(request, name);
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

static bool read_limit(console_parameter *parameter, void *request, size_t *limit, const char **why)
{
    uint64_t number = 0;
    const bool good = read_number(parameter, request, "limit", CONSOLE_ITEMS, CONSOLE_ITEMS_MAX, &number);
    if (!good)
        *why = "limit must be a number from 0 to 500";
    *limit = (size_t)number;
    return good;
}

static bool read_selection(console_parameter *parameter, void *request, struct selection *selection, const char **why)
{
    const char *address = parameter(request, "address");
    const char *state = parameter(request, "state");
    const char *sort = parameter(request, "sort");
    const char *slow = parameter(request, "slow");
    const char *tag = parameter(request, "tag");
    *selection = (struct selection){ .by_tag = tag != NULL,
                                     .tag = tag,
                                     .tag_length = tag != NULL ? strlen(tag) : 0,
                                     .by_state = state != NULL,
                                     .by_address = address != NULL,
                                     .slow = slow != NULL && strcmp(slow, "1") == 0 };
    if (address != NULL && network_parse(address, &selection->address) != NULL)
        *why = "address must be an IP address or a network";
    else if (state != NULL && !selection_state_find(state, &selection->state))
        *why = "state must be one of " SELECTION_STATE_NAMES;
    else if (sort != NULL && !selection_order_find(sort, &selection->order))
        *why = "sort must be one of " SELECTION_ORDER_NAMES;
    else
        return read_limit(parameter, request, &selection->limit, why);
    return false;
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

char *console_status(struct console *console, console_parameter *parameter, void *request, size_t *length,
                     const char **why)
{
    (void)parameter;
    (void)request;
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

char *console_clients(struct console *console, console_parameter *parameter, void *request, size_t *length,
                      const char **why)
{
    struct selection selection;
    if (!read_selection(parameter, request, &selection, why))
        return NULL;
    progress_catch_up(console->subject->kamailio);
    return write_all(report_clients(&selection, console->subject->bus), length);
}

char *console_tags(struct console *console, console_parameter *parameter, void *request, size_t *length,
                   const char **why)
{
    size_t limit = 0;
    if (!read_limit(parameter, request, &limit, why))
        return NULL;
    progress_catch_up(console->subject->kamailio);
    return write_all(report_tags(console->subject->bus, limit), length);
}

char *console_tail(struct console *console, console_parameter *parameter, void *request, size_t *length,
                   const char **why)
{
    uint64_t from = 0;
    if (!read_number(parameter, request, "from", 0, UINT64_MAX, &from)) {
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
