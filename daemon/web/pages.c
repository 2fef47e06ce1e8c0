/* What each page answers, and what is answered to a request that no page is for. */
#include "web/pages.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "kamailio/progress.h"
#include "views/metrics.h"
#include "web/page_html.h" /* made from page.html: PAGE_HTML, PAGE_SCRIPT_HASH, PAGE_STYLE_HASH */

#define LINE_ROOM 256 /* bytes of an answer of one line */
#define PLAIN "text/plain; charset=utf-8"

/* Nothing from elsewhere is loaded, nothing but this script runs, and no other page shows this one within itself. */
#define POLICY                                                                                                         \
    "default-src 'none'; script-src 'sha256-" PAGE_SCRIPT_HASH "'; style-src 'sha256-" PAGE_STYLE_HASH                 \
    "'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/* ---- answers ---------------------------------------------------------------------------------------------------- */

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
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "Content-Security-Policy", POLICY);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    const enum MHD_Result queued = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

/* Answer with one line. */
static enum MHD_Result answer_line(struct MHD_Connection *connection, unsigned status, const char *words)
{
    char line[LINE_ROOM];
    const int length = snprintf(line, sizeof(line), "%s\n", words);
    return answer(connection, status, PLAIN, line, (size_t)length, MHD_RESPMEM_MUST_COPY);
}

/* ---- pages ------------------------------------------------------------------------------------------------------ */

static enum MHD_Result answer_metrics(const struct pages *pages, struct MHD_Connection *connection)
{
    size_t length = 0;
    progress_catch_up(pages->console.subject->kamailio);
    char *text = metrics_describe(pages->console.subject, &length);
    if (text == NULL)
        return answer_line(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "no memory");
    return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, length,
                  MHD_RESPMEM_MUST_FREE);
}

static enum MHD_Result answer_health(const struct pages *pages, struct MHD_Connection *connection)
{
    (void)pages;
    return answer_line(connection, MHD_HTTP_OK, "evapid is alive");
}

static enum MHD_Result answer_ready(const struct pages *pages, struct MHD_Connection *connection)
{
    const char *why = metrics_objection(pages->console.subject);
    return answer_line(connection, why == NULL ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE,
                       why == NULL ? "ready" : why);
}

static enum MHD_Result answer_page(const struct pages *pages, struct MHD_Connection *connection)
{
    static char html[] = PAGE_HTML;
    (void)pages;
    return answer(connection, MHD_HTTP_OK, "text/html; charset=utf-8", html, sizeof(html) - 1, MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result answer_json(struct pages *pages, struct MHD_Connection *connection, console_answer *console)
{
    size_t length = 0;
    const char *why = NULL;
    char *text = console(&pages->console, connection, &length, &why);
    if (text != NULL)
        return answer(connection, MHD_HTTP_OK, "application/json", text, length, MHD_RESPMEM_MUST_FREE);
    if (why != NULL)
        return answer_line(connection, MHD_HTTP_BAD_REQUEST, why);
    return answer_line(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "no memory");
}

enum page_part { PART_ALWAYS, PART_PAGE, PART_TAIL };

/* Either answer or console is set. */
static const struct page {
    const char *path;
    enum page_part part;
    enum MHD_Result (*answer)(const struct pages *pages, struct MHD_Connection *connection);
    console_answer *console;
} table[] = {
    { "/metrics", PART_ALWAYS, answer_metrics, NULL },   { "/healthz", PART_ALWAYS, answer_health, NULL },
    { "/readyz", PART_ALWAYS, answer_ready, NULL },      { "/", PART_PAGE, answer_page, NULL },
    { "/status.json", PART_PAGE, NULL, console_status }, { "/clients.json", PART_PAGE, NULL, console_clients },
    { "/tags.json", PART_PAGE, NULL, console_tags },     { "/tail.json", PART_TAIL, NULL, console_tail },
};

static const struct page *page_of(const char *path)
{
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (strcmp(table[i].path, path) == 0)
            return &table[i];
    return NULL;
}

/* Why there is no such page here; NULL: there is. */
static const char *page_objection(const struct config_http *config, const struct page *page)
{
    const bool known = page != NULL && (page->part == PART_ALWAYS || config->page);
    if (!known && config->page)
        return "there are /, /status.json, /clients.json, /tags.json, /metrics, /healthz and /readyz";
    if (!known)
        return "there are /metrics, /healthz and /readyz; the configuration does not turn the status page on (http.page)";
    if (page->part == PART_TAIL && !config->tail)
        return "the configuration does not allow events to be shown (http.tail)";
    return NULL;
}

/* ---- who asks --------------------------------------------------------------------------------------------------- */

/* Is the name in a Host header this machine by itself: localhost, or an IP address? */
static bool host_is_here(const char *host)
{
    struct in6_addr address;
    char name[64];
    const bool v6 = host[0] == '[';
    const size_t length = v6 ? strcspn(host + 1, "]") : strcspn(host, ":");
    if (length >= sizeof(name))
        return false;
    memcpy(name, host + v6, length);
    name[length] = '\0';
    return strcasecmp(name, "localhost") == 0 || inet_pton(v6 ? AF_INET6 : AF_INET, name, &address) == 1;
}

/* Another site can have its own name resolved to 127.0.0.1, and have the operator's browser read here (DNS rebinding).
 * It can't have the browser send another name than its own. */
static bool may_be_another_site(const struct pages *pages, const struct page *page, struct MHD_Connection *connection)
{
    const struct network own = network_of(&pages->config->address);
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    return page->part != PART_ALWAYS && network_is_loopback(&own) && host != NULL && !host_is_here(host);
}

enum MHD_Result pages_answer(struct pages *pages, struct MHD_Connection *connection, const char *path,
                             const char *method)
{
    const struct page *page = page_of(path);
    const char *why = page_objection(pages->config, page);
    if (why != NULL)
        return answer_line(connection, MHD_HTTP_NOT_FOUND, why);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_line(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "this can only be read");
    if (may_be_another_site(pages, page, connection))
        return answer_line(connection, MHD_HTTP_MISDIRECTED_REQUEST,
                           "this is a loopback address: ask by an IP address or as localhost");
    return page->answer != NULL ? page->answer(pages, connection) : answer_json(pages, connection, page->console);
}
