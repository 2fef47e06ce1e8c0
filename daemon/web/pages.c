/* What each page answers, and what is answered to a request that no page is for. */
#include "web/pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kamailio/progress.h"
#include "views/metrics.h"

/* Answer with text. memory says whether libmicrohttpd frees it. */
static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type, char *text,
                              size_t length, enum MHD_ResponseMemoryMode memory)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(length, text, memory);
    if (response == NULL) {
        if (memory == MHD_RESPMEM_MUST_FREE)
            free(text);
        return MHD_NO; /* this closes the connection */
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    const enum MHD_Result queued = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

/* Answer with one line. */
static enum MHD_Result answer_line(struct MHD_Connection *connection, unsigned status, const char *words)
{
    char line[256];
    const int length = snprintf(line, sizeof(line), "%s\n", words);
    return answer(connection, status, "text/plain; charset=utf-8", line, (size_t)length, MHD_RESPMEM_MUST_COPY);
}

static enum MHD_Result answer_metrics(const struct status_subject *subject, struct MHD_Connection *connection)
{
    size_t length = 0;
    progress_catch_up(subject->kamailio);
    char *text = metrics_describe(subject, &length);
    if (text == NULL)
        return answer_line(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "no memory");
    return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, length,
                  MHD_RESPMEM_MUST_FREE);
}

static enum MHD_Result answer_health(const struct status_subject *subject, struct MHD_Connection *connection)
{
    (void)subject;
    return answer_line(connection, MHD_HTTP_OK, "evapid is alive");
}

static enum MHD_Result answer_ready(const struct status_subject *subject, struct MHD_Connection *connection)
{
    const char *why = metrics_objection(subject);
    return answer_line(connection, why == NULL ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                       why == NULL ? "ready" : why);
}

static const struct page {
    const char *path;
    enum MHD_Result (*answer)(const struct status_subject *subject, struct MHD_Connection *connection);
} pages[] = {
    { "/metrics", answer_metrics },
    { "/healthz", answer_health },
    { "/readyz", answer_ready },
};

static const struct page *page_of(const char *path)
{
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++)
        if (strcmp(pages[i].path, path) == 0)
            return &pages[i];
    return NULL;
}

enum MHD_Result pages_answer(const struct status_subject *subject, struct MHD_Connection *connection, const char *path,
                             const char *method)
{
    const struct page *page = page_of(path);
    if (page == NULL)
        return answer_line(connection, MHD_HTTP_NOT_FOUND, "there are /metrics, /healthz and /readyz");
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_line(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "this can only be read");
    return page->answer(subject, connection);
}
