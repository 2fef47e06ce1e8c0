/* The screen of top: lines and rows of columns, cut where it ends. */
#ifndef EVAPICTL_SCREEN_H
#define EVAPICTL_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

/* Take the terminal, and give it back as it was; also when the program exits otherwise. False: ncurses does not know it. */
bool screen_open(void);
void screen_close(void);

/* Write a line from its beginning. */
__attribute__((format(printf, 2, 3))) void screen_line(int y, const char *format, ...);

/* A column of so many places; 0: those that the others leave. right: to its right. */
struct screen_column {
    const char *title;
    int width;
    bool right;
};

/* Write cells in a line; the last columns are left out where the screen has no room for them. */
void screen_row(int y, const struct screen_column *columns, size_t count, const char *const *cells);

#endif
