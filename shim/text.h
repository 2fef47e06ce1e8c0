/* Texts: parameters of script functions, literal or with variables.
 *
 * Kamailio's own evaluation (pv_printf into pv_get_buffer) ends at the core's pv_buffer_size, 8 KiB by default. Events
 * may be far larger, so this file builds texts in a buffer of this process that grows as needed. A text means the same
 * as there: NULL values print as "<null>", integers as numbers. */
#ifndef EVAPI_TEXT_H
#define EVAPI_TEXT_H

#include <stdbool.h>

#include "core/pvar.h"
#include "core/str.h"

struct text {
    char *original;      /* the parameter as Kamailio gave it; owns the bytes */
    pv_elem_t *elements; /* stretches of text and variables; NULL: literal is the whole text */
    str literal;
};

/* A text without variables. The caller keeps its bytes. */
struct text text_literal(const str *bytes);

/* Kamailio's fixup and its reverse, for any parameter of any function of the module: char * to struct text * and
 * back. */
int text_fixup(void **param, int param_no);
int text_free_fixup(void **param, int param_no);

/* Evaluate text for msg. *out may lie in a variable's own memory, in the text, or in the buffer. It is valid until
 * text_done or the next text_read. Returns false if memory is short. */
bool text_read(sip_msg_t *msg, const struct text *text, str *out);

/* Copy the result of text_read into the buffer, if it lies elsewhere, so that it survives other code: variables answer
 * in static buffers of Kamailio that any function may use. Returns false if memory is short. */
bool text_keep(str *got);

/* The result of text_read is no longer needed: release its memory. */
void text_done(void);

#endif
