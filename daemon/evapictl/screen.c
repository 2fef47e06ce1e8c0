/* Writes to a terminal through ncurses. */
#define _XOPEN_SOURCE_EXTENDED 1 /* wide characters */
#include "evapictl/screen.h"

#include <ncurses.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define LINE_MAX_BYTES 512
#define WIDTH_LEAST 8 /* of the column that gets the remaining width */

static SCREEN *screen;

bool screen_open(void)
{
    /* The size comes from the terminal, also later. Exported LINES and COLUMNS would be outdated: programs with GNU
     * readline export them to all that they start. */
    unsetenv("LINES");
    unsetenv("COLUMNS");
    screen = newterm(NULL, stdout, stdin);
    if (screen == NULL)
        return false;
    atexit(screen_close);
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    curs_set(0);
    return true;
}

void screen_close(void)
{
    if (screen == NULL)
        return;
    endwin();
    delscreen(screen);
    screen = NULL;
}

/* The next character of the text and its width in this terminal's locale; '?' if the locale lacks it. Returns its
 * bytes. */
static size_t next_character(const char *text, wchar_t *c, int *places)
{
    mbstate_t state = { 0 };
    const size_t size = mbrtowc(c, text, strlen(text), &state);
    *places = size <= strlen(text) ? wcwidth(*c) : -1;
    if (*places >= 0)
        return size;
    *c = L'?';
    *places = 1;
    return 1;
}

static int places_of(const char *text)
{
    int sum = 0;
    int places = 0;
    wchar_t c = L'\0';
    for (; *text != '\0'; sum += places)
        text += next_character(text, &c, &places);
    return sum;
}

/* Write text at this position, up to this width. */
static void put_text(int y, int x, int width, const char *text)
{
    int places = 0;
    wchar_t c[2] = { L'\0', L'\0' };
    if (y < 0 || y >= LINES)
        return;
    move(y, x);
    for (; *text != '\0'; width -= places) {
        text += next_character(text, &c[0], &places);
        if (places > width)
            return;
        addnwstr(c, 1);
    }
}

void screen_line(int y, const char *format, ...)
{
    char text[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    put_text(y, 0, COLS, text);
}

/* The width left for the column without its own width, if the first count columns are shown. */
static int width_left(const struct screen_column *columns, size_t count)
{
    int left = COLS - (int)count + 1;
    for (size_t i = 0; i < count; i++)
        left -= columns[i].width;
    return left;
}

void screen_row(int y, const struct screen_column *columns, size_t count, const char *const *cells)
{
    int x = 0;
    while (count > 1 && width_left(columns, count) < WIDTH_LEAST)
        count--;
    for (size_t i = 0; i < count && x < COLS; i++) {
        const int wanted = columns[i].width > 0 ? columns[i].width : width_left(columns, count);
        const int width = wanted < COLS - x ? wanted : COLS - x;
        const int fill = width - places_of(cells[i]);
        if (y < LINES)
            mvhline(y, x, ' ', width);
        put_text(y, x + (columns[i].right && fill > 0 ? fill : 0), width, cells[i]);
        x += width + 1;
    }
}
