/* Walking through JSON text that jansson has accepted: this only finds the way, and does not check. */
#include "config/place.h"

#include <stdbool.h>
#include <string.h>

static const char *skip_string(const char *at)
{
    for (at++; *at != '"' && *at != '\0'; at++)
        if (*at == '\\' && at[1] != '\0')
            at++;
    return *at == '"' ? at + 1 : at;
}

/* Blank a block comment that begins at `at`. Returns its end; NULL: it has none. */
static char *blank_block(char *at, const char *end)
{
    *at++ = ' ';
    *at++ = ' ';
    for (; at + 1 < end; at++) {
        if (at[0] == '*' && at[1] == '/') {
            at[0] = at[1] = ' ';
            return at + 2;
        }
        if (*at != '\n')
            *at = ' ';
    }
    return NULL;
}

size_t place_blank_comments(char *text, size_t length)
{
    char *end = text + length;
    for (char *at = text; at < end;) {
        if (*at == '"') {
            for (at++; at < end && *at != '"' && *at != '\n'; at++)
                if (*at == '\\' && at + 1 < end)
                    at++;
            at++;
        } else if (*at == '#' || (*at == '/' && at + 1 < end && at[1] == '/')) {
            while (at < end && *at != '\n')
                *at++ = ' ';
        } else if (*at == '/' && at + 1 < end && at[1] == '*') {
            char *begin = at;
            at = blank_block(at, end);
            if (at == NULL)
                return (size_t)(begin - text);
        } else {
            at++;
        }
    }
    return length;
}

static const char *skip_space(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

/* Skip one value, however deeply nested. */
static const char *skip_value(const char *at)
{
    unsigned depth = 0;
    at = skip_space(at);
    do {
        if (*at == '"') {
            at = skip_string(at);
        } else if (*at == '{' || *at == '[') {
            depth++;
            at++;
        } else if (*at == '}' || *at == ']') {
            depth--;
            at++;
        } else if (depth > 0 && *at != '\0') {
            at++;
        } else {
            at += strcspn(at, ",]} \t\r\n");
        }
    } while (depth > 0 && *at != '\0');
    return at;
}

/* How many bytes of path the key at name, of length bytes, matches; 0: it is another key. A key itself may contain dots
 * and brackets. */
static size_t match_key(const char *path, const char *name, size_t length)
{
    const bool same = strncmp(path, name, length) == 0;
    return same && (path[length] == '\0' || path[length] == '.' || path[length] == '[') ? length : 0;
}

/* The value of the longest key with which path begins; *used: that key's length. */
static const char *find_key(const char *object, const char *path, size_t *used)
{
    const char *found = NULL;
    const char *at = skip_space(object + 1);
    *used = 0;
    while (*at == '"') {
        const char *name = at + 1;
        at = skip_string(at);
        const size_t length = match_key(path, name, (size_t)(at - 1 - name));
        at = skip_space(skip_space(at) + 1); /* the colon */
        if (length > *used) {
            *used = length;
            found = at;
        }
        at = skip_space(skip_value(at));
        if (*at == ',')
            at = skip_space(at + 1);
    }
    return found;
}

static const char *find_element(const char *array, unsigned index)
{
    const char *at = skip_space(array + 1);
    for (unsigned i = 0; i < index && *at != ']' && *at != '\0'; i++) {
        at = skip_space(skip_value(at));
        if (*at == ',')
            at = skip_space(at + 1);
    }
    return *at == ']' || *at == '\0' ? NULL : at;
}

/* The value within `value` that the first part of *path names; NULL: it is not there. *path is moved after that
 * part. */
static const char *step_into(const char *value, const char **path)
{
    const char *part = *path;
    if (*value == '{') {
        size_t used = 0;
        part += *part == '.';
        const char *found = find_key(value, part, &used);
        *path = part + used;
        return found;
    }
    if (*value != '[' || *part != '[')
        return NULL;
    unsigned index = 0;
    for (part++; *part >= '0' && *part <= '9'; part++)
        index = index * 10 + (unsigned)(*part - '0');
    *path = *part == ']' ? part + 1 : part;
    return find_element(value, index);
}

struct place place_find(const char *text, const char *path)
{
    const char *found = skip_space(text);
    while (*path != '\0') {
        const char *inner = step_into(found, &path);
        if (inner == NULL)
            break;
        found = inner;
    }
    return place_of(text, (size_t)(found - text));
}

struct place place_of(const char *text, size_t offset)
{
    struct place place = { 1, 1 };
    for (size_t i = 0; i < offset; i++) {
        place.column++;
        if (text[i] == '\n') {
            place.line++;
            place.column = 1;
        }
    }
    return place;
}
