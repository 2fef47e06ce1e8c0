/* Evaluates parameters. Owns the process's buffer, and the value of a variable that is used in place. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "core/dprint.h"
#include "core/mem/mem.h"
#include "core/sr_module.h"

#include "text.h"

#define TEXT_BUFFER_FIRST 4096U
#define TEXT_BUFFER_KEPT (1U << 20) /* a larger buffer is freed after use */

static struct {
    char *bytes;
    size_t length, room;
} buffer;

static pv_value_t held; /* the variable that holds text_read's result */

struct text text_literal(const str *bytes)
{
    return (struct text){ .literal = *bytes };
}

/* Kamailio has computed the value of an expression for this call. Its bytes are final and are not searched for
 * variables again: else a "$" in a SIP header could read the script's variables. */
static bool is_computed(void **param, int param_no)
{
    return fixup_get_param(param, param_no, param_no)->type == STRING_RVE_ST;
}

int text_fixup(void **param, int param_no)
{
    struct text *text = pkg_malloc(sizeof(*text));
    if (text == NULL) {
        PKG_MEM_ERROR;
        return -1;
    }
    *text = (struct text){ .original = *param, .literal = { .s = *param } };
    if (is_computed(param, param_no)) {
        text->literal.len = fixup_get_param(param, param_no, param_no)->u.str.len;
    } else {
        text->literal.len = (int)strlen(text->literal.s);
        if (pv_parse_format(&text->literal, &text->elements) < 0) {
            LM_ERR("parameter %d can't be read: %s\n", param_no, text->original);
            pkg_free(text);
            return -1;
        }
    }
    *param = text;
    return 0;
}

int text_free_fixup(void **param, int param_no)
{
    (void)param_no;
    struct text *text = *param;
    *param = text->original;
    if (text->elements != NULL)
        pv_elem_free_all(text->elements);
    pkg_free(text);
    return 0;
}

static bool buffer_append(const char *bytes, size_t length)
{
    if (length > (size_t)INT_MAX - buffer.length) {
        LM_ERR("a text of over %d bytes\n", INT_MAX);
        return false;
    }
    if (length > buffer.room - buffer.length) {
        size_t room = buffer.room > 0 ? buffer.room : TEXT_BUFFER_FIRST;
        while (room - buffer.length < length)
            room *= 2;
        char *grown = realloc(buffer.bytes, room);
        if (grown == NULL) {
            LM_ERR("no memory for a text of %zu bytes\n", buffer.length + length);
            return false;
        }
        buffer.bytes = grown;
        buffer.room = room;
    }
    memcpy(buffer.bytes + buffer.length, bytes, length);
    buffer.length += length;
    return true;
}

/* The text of a variable, empty if it cannot be read. The value stays in *value. */
static str variable_text(sip_msg_t *msg, pv_spec_t *spec, pv_value_t *value)
{
    memset(value, 0, sizeof(*value));
    if (spec->type == PVT_NONE || pv_get_spec_value(msg, spec, value) != 0)
        return (str){ .s = "", .len = 0 };
    return value->flags & PV_VAL_NULL ? *pv_get_null_str() : value->rs;
}

static bool append_element(sip_msg_t *msg, const pv_elem_t *element)
{
    if (element->text.len > 0 && !buffer_append(element->text.s, (size_t)element->text.len))
        return false;
    if (element->spec == NULL)
        return true;
    pv_value_t value;
    const str got = variable_text(msg, element->spec, &value);
    const bool appended = got.len <= 0 || buffer_append(got.s, (size_t)got.len);
    pv_value_destroy(&value);
    return appended;
}

bool text_read(sip_msg_t *msg, const struct text *text, str *out)
{
    text_done();
    const pv_elem_t *element = text->elements;
    *out = text->literal;
    if (element == NULL)
        return true;
    if (element->next == NULL && element->spec == NULL) {
        *out = element->text;
        return true;
    }
    if (element->next == NULL && element->text.len == 0) {
        *out = variable_text(msg, element->spec, &held);
        return true;
    }
    for (; element != NULL; element = element->next)
        if (!append_element(msg, element))
            return false;
    *out = (str){ .s = buffer.bytes, .len = (int)buffer.length };
    return true;
}

bool text_keep(str *got)
{
    if (got->s == buffer.bytes)
        return true;
    if (!buffer_append(got->s, (size_t)got->len))
        return false;
    got->s = buffer.bytes;
    return true;
}

void text_done(void)
{
    pv_value_destroy(&held);
    buffer.length = 0;
    if (buffer.room <= TEXT_BUFFER_KEPT)
        return;
    free(buffer.bytes);
    buffer.bytes = NULL;
    buffer.room = 0;
}
