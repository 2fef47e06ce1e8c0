/* The screen of top: lines and rows of columns, cut at its edge. */
#ifndef EVAPICTL_SCREEN_H
#define EVAPICTL_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

/* Take over the terminal, and restore it later, also when the program exits early. False: ncurses does not know it. */
bool screen_open(void);
void screen_close(void);

/* Write a line from its start. */
__attribute__((format(printf, 2, 3))) void screen_line(int y, const char *format, ...);

/* A column of this width; 0: the width that the others leave. right: aligned to the right. */
struct screen_column {
    const char *title;
    int width;
    bool right;
};

/* Write cells in a line. The last columns are left out if the screen is too narrow. */
void screen_row(int y, const struct screen_column *columns, size_t count, const char *const *cells);

#endif
