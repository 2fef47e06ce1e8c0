/* Texts: parameters of script functions, literal or with variables in them.
 *
 * Kamailio's own evaluation (pv_printf into pv_get_buffer) ends at the core's pv_buffer_size, 8 KiB if nothing is set.
 * Events may be far larger, so texts are put together here, in a buffer of this process that grows as needed. What a
 * text means is the same as there: NULL values print as "<null>", integers as numbers. */
#ifndef EVAPI_TEXT_H
#define EVAPI_TEXT_H

#include <stdbool.h>

#include "core/pvar.h"
#include "core/str.h"

struct text {
    char *original;      /* the parameter as Kamailio gave it; it owns the bytes */
    pv_elem_t *elements; /* stretches of text and variables, or NULL: literal is all */
    str literal;
};

/* A text without variables, of bytes that somebody else keeps. */
struct text text_literal(const str *bytes);

/* Kamailio's fixup and its reverse, for any parameter of any of the module's functions: char * to struct text * and
 * back. */
int text_fixup(void **param, int param_no);
int text_free_fixup(void **param, int param_no);

/* Read what text stands for in msg. *out may lie in a variable's own memory, in the text, or in the buffer: it is valid
 * until text_done or the next text_read. Returns false when there is no memory for it. */
bool text_read(sip_msg_t *msg, const struct text *text, str *out);

/* Copy what text_read gave into the buffer, if it lies elsewhere, so that it stands while other code runs: variables
 * answer in static buffers of Kamailio's that any function may use. Returns false when there is no memory. */
bool text_keep(str *got);

/* What text_read gave is not needed any more: give back what was held for it. */
void text_done(void);

#endif
