/* Fuzzing how evapictl prints an answer, and a payload. Whatever they are, it prints whole lines of text, without any
 * character that controls a terminal. JSON that it formats stays the same JSON. */
#include <jansson.h>
#include <stdio.h>

#include "evapictl/ask.h"
#include "evapictl/json_text.h"
#include "evapictl/status_text.h"
#include "evapictl/text.h"
#include "input.h"

static FILE *terminal;
static char *text;
static size_t size;

static void begin_printing(void)
{
    terminal = stdout;
    stdout = open_memstream(&text, &size);
    assert(stdout != NULL);
}

/* All that was printed is UTF-8, without control characters other than newlines. */
static void end_printing(void)
{
    fclose(stdout);
    stdout = terminal;
    json_t *string = json_stringn(text, size); /* NULL: not UTF-8 */
    assert(string != NULL);
    json_decref(string);
    for (size_t i = 0; i < size; i++)
        assert(text[i] == '\n' || control_character(text + i, size - i) == 0);
}

static void show(void (*print)(const json_t *answer), const json_t *answer)
{
    begin_printing();
    print(answer);
    end_printing();
    assert(size > 0 && text[size - 1] == '\n');
    free(text);
}

static void show_answer(const char *line, size_t length)
{
    json_t *answer = read_answer(line, length);
    if (answer == NULL)
        return;
    make_printable(answer);
    show(print_status, answer);
    show(print_kamailio, answer);
    show(print_listeners, answer);
    show(print_clients, answer);
    show(print_client, answer);
    show(print_tags, answer);
    show(print_stats, answer);
    json_decref(answer);
}

/* If the payload has no control character, the formatted JSON can be read again. */
static void show_json(const char *payload, size_t length)
{
    begin_printing();
    print_json(stdout, payload, length, 4, false);
    end_printing();
    json_t *before = json_loadb(payload, length, JSON_ALLOW_NUL, NULL);
    json_t *after = json_loadb(text, size, JSON_ALLOW_NUL, NULL);
    bool plain = true;
    for (size_t i = 0; i < length; i++)
        plain &= payload[i] == '\t' || payload[i] == '\r' || payload[i] == '\n' ||
                 control_character(payload + i, length - i) == 0;
    assert(!plain || (after != NULL && json_equal(before, after)));
    json_decref(before);
    json_decref(after);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *line = copy_of(bytes, length);
    show_answer(line, length);
    if (is_json(line, length))
        show_json(line, length);
    begin_printing();
    print_plain(stdout, line, length);
    end_printing();
    free(text);
    free(line);
    return 0;
}
