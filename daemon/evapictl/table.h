/* A table of text: rows of cells, printed with every column as wide as its widest cell. */
#ifndef EVAPICTL_TABLE_H
#define EVAPICTL_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#define COLUMNS_MAX 16

/* A title that begins with '>' is printed without it, and its column is aligned to the right. */
struct table {
    const char *const *titles;
    size_t columns, rows, room;
    char *(*cells)[COLUMNS_MAX];
};

/* Begin; the titles outlive the table. */
void table_open(struct table *table, const char *const *titles, size_t columns);

/* Add a row of empty cells. */
void table_begin_row(struct table *table);

/* Set a cell of the last row. */
__attribute__((format(printf, 3, 4))) void table_set(struct table *table, size_t column, const char *format, ...);

/* Print the table to standard output, and free it. */
void table_print(struct table *table);

/* The text's width on a terminal, which uses UTF-8. */
size_t text_width(const char *text);

#endif
