/* Prints JSON token by token. */
#include "evapictl/json_text.h"

#include <jansson.h>
#include <string.h>

#include "evapictl/text.h"

#define INDENT 2U

enum token { TOKEN_KEY, TOKEN_STRING, TOKEN_NUMBER, TOKEN_WORD, TOKENS };

/* Colours of ECMA-48, which terminals have long supported. */
static const char *const colours_of[TOKENS] = { "\033[1;34m", "\033[32m", "\033[36m", "\033[35m" };

struct printer {
    FILE *out;
    const char *text;
    size_t length, at;
    unsigned depth, margin;
    bool colours;
};

bool is_json(const char *text, size_t length)
{
    size_t i = 0;
    while (i < length && strchr(" \t\r\n", text[i]) != NULL && text[i] != '\0')
        i++;
    if (i == length || (text[i] != '{' && text[i] != '[') || memchr(text, '\0', length) != NULL)
        return false; /* the JSON reader would take a NUL after the value for the end */
    json_t *value = json_loadb(text, length, JSON_ALLOW_NUL, NULL);
    json_decref(value);
    return value != NULL;
}

static void print_break(const struct printer *printer)
{
    fprintf(printer->out, "\n%*s", (int)(printer->margin + printer->depth * INDENT), "");
}

static void print_token(const struct printer *printer, enum token token, const char *text, size_t length)
{
    if (printer->colours)
        fputs(colours_of[token], printer->out);
    print_plain(printer->out, text, length);
    if (printer->colours)
        fputs("\033[0m", printer->out);
}

/* Bytes of the string that begins here, including its quotes. */
static size_t string_length(const struct printer *printer)
{
    size_t i = printer->at + 1;
    while (i < printer->length && printer->text[i] != '"')
        i += printer->text[i] == '\\' ? 2 : 1;
    return i + 1 - printer->at;
}

/* The next character that is not white space; NUL: there is none. */
static char next_character(const struct printer *printer, size_t at)
{
    while (at < printer->length && strchr(" \t\r\n", printer->text[at]) != NULL)
        at++;
    return at < printer->length ? printer->text[at] : '\0';
}

static void print_string(struct printer *printer)
{
    const size_t length = string_length(printer);
    const bool key = next_character(printer, printer->at + length) == ':';
    print_token(printer, key ? TOKEN_KEY : TOKEN_STRING, printer->text + printer->at, length);
    printer->at += length;
}

/* A number, true, false or null. */
static void print_word(struct printer *printer)
{
    const char *word = printer->text + printer->at;
    size_t length = 0;
    while (printer->at + length < printer->length && strchr(",:]} \t\r\n", word[length]) == NULL)
        length++;
    print_token(printer, strchr("tfn", word[0]) != NULL ? TOKEN_WORD : TOKEN_NUMBER, word, length);
    printer->at += length;
}

static void print_open(struct printer *printer)
{
    const char c = printer->text[printer->at++];
    const char next = next_character(printer, printer->at);
    fputc(c, printer->out);
    if (next == '}' || next == ']')
        return;
    printer->depth++;
    print_break(printer);
}

/* An empty object or array had no line break. */
static void print_close(struct printer *printer, char before)
{
    if (before != '{' && before != '[') {
        printer->depth--;
        print_break(printer);
    }
    fputc(printer->text[printer->at++], printer->out);
}

void print_json(FILE *out, const char *text, size_t length, unsigned margin, bool colours)
{
    struct printer printer = { .out = out, .text = text, .length = length, .margin = margin, .colours = colours };
    char before = '\0'; /* the last character that was not white space */
    while (printer.at < length) {
        const char c = text[printer.at];
        switch (c) {
        case ' ':
        case '\t':
        case '\r':
        case '\n': printer.at++; continue;
        case '{':
        case '[': print_open(&printer); break;
        case '}':
        case ']': print_close(&printer, before); break;
        case '"': print_string(&printer); break;
        case ',':
            fputc(c, out);
            printer.at++;
            print_break(&printer);
            break;
        case ':':
            fputs(": ", out);
            printer.at++;
            break;
        default: print_word(&printer);
        }
        before = c;
    }
}
