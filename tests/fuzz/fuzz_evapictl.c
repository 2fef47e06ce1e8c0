/* Fuzzing what evapictl makes of an answer: whatever it is, the tables hold whole lines of text, with no character that
 * would drive a terminal. */
#define main evapictl_main
int evapictl_main(int argc, char **argv);
/* A program of its own: its functions are not to be had otherwise. NOLINTNEXTLINE(bugprone-suspicious-include) */
#include "../../daemon/evapictl.c"
#undef main

#include "input.h"

/* Everything printed is UTF-8 without control characters, but for the ends of lines. */
static void check_printed(const char *text, size_t length)
{
    json_t *string = json_stringn(text, length); /* NULL: not UTF-8 */
    assert(string != NULL);
    json_decref(string);
    for (size_t i = 0; i < length; i++)
        assert(text[i] == '\n' || control_character(text + i, length - i) == 0);
    assert(length > 0 && text[length - 1] == '\n');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    char *line = copy_of(bytes, length);
    json_t *answer = read_answer(line, length);
    free(line);
    if (answer == NULL)
        return 0;
    char *text = NULL;
    size_t size = 0;
    FILE *const terminal = stdout;
    stdout = open_memstream(&text, &size);
    assert(stdout != NULL);
    make_printable(answer);
    show_status(answer);
    fclose(stdout);
    stdout = terminal;
    check_printed(text, size);
    free(text);
    json_decref(answer);
    return 0;
}
