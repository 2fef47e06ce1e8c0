/* The pages of the HTTP endpoint: what evapid answers to which path. A page is a row of the table in pages.c. */
#ifndef EVAPID_PAGES_H
#define EVAPID_PAGES_H

#include <microhttpd.h>

#include "config/config_type.h"
#include "web/console.h"

struct pages {
    const struct config_http *config; /* which pages there are */
    struct console console;
};

/* Queue the answer to a request. MHD_NO: memory is short; libmicrohttpd closes the connection. */
enum MHD_Result pages_answer(struct pages *pages, struct MHD_Connection *connection, const char *path,
                             const char *method);

#endif
