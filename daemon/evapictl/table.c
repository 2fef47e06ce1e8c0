/* Cells in columns. */
#include "evapictl/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evapictl/text.h"

void table_open(struct table *table, const char *const *titles, size_t columns)
{
    *table = (struct table){ .titles = titles, .columns = columns };
}

void table_begin_row(struct table *table)
{
    if (table->rows == table->room) {
        table->room = table->room == 0 ? 16 : table->room * 2;
        void *more = realloc((void *)table->cells, table->room * sizeof(*table->cells));
        if (more == NULL)
            out_of_memory();
        table->cells = more;
    }
    memset((void *)table->cells[table->rows++], 0, sizeof(*table->cells));
}

void table_set(struct table *table, size_t column, const char *format, ...)
{
    char **cell = &table->cells[table->rows - 1][column];
    va_list args;
    va_start(args, format);
    if (vasprintf(cell, format, args) < 0)
        out_of_memory();
    va_end(args);
}

size_t text_width(const char *text)
{
    size_t width = 0;
    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static const char *table_title(const struct table *table, size_t column)
{
    return table->titles[column] + (table->titles[column][0] == '>');
}

static const char *table_cell(const struct table *table, size_t row, size_t column)
{
    const char *cell = table->cells[row][column];
    return cell != NULL ? cell : "";
}

static size_t table_width(const struct table *table, size_t column)
{
    size_t width = text_width(table_title(table, column));
    for (size_t i = 0; i < table->rows; i++) {
        const size_t own = text_width(table_cell(table, i, column));
        width = own > width ? own : width;
    }
    return width;
}

static void print_cell(const char *cell, size_t width, bool right, bool last)
{
    const int fill = (int)(width - text_width(cell));
    printf("  %*s%s", right ? fill : 0, "", cell);
    if (!right && !last)
        printf("%*s", fill, "");
}

void table_print(struct table *table)
{
    size_t widths[COLUMNS_MAX];
    for (size_t i = 0; i < table->columns; i++)
        widths[i] = table_width(table, i);
    for (size_t i = 0; i < table->columns; i++)
        print_cell(table_title(table, i), widths[i], table->titles[i][0] == '>', i + 1 == table->columns);
    putchar('\n');
    for (size_t row = 0; row < table->rows; row++) {
        for (size_t i = 0; i < table->columns; i++) {
            print_cell(table_cell(table, row, i), widths[i], table->titles[i][0] == '>', i + 1 == table->columns);
            free(table->cells[row][i]);
        }
        putchar('\n');
    }
    free((void *)table->cells);
}
