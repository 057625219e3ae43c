/* table — columns as wide as their widest cells; see ctl.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/optctl/ctl.h"

struct table {
    const char *columns;
    size_t width; /* columns */
    char **cells; /* NULL: there was no memory for it */
    size_t count, capacity;
    bool failed;
};

struct table *table_new(const char *columns)
{
    struct table *table = calloc(1, sizeof(*table));
    if (table != NULL) {
        table->columns = columns;
        table->width = strlen(columns);
    }
    return table;
}

static char *format_cell(const char *format, va_list arguments)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out != NULL) {
        vfprintf(out, format, arguments);
        if (fclose(out) == 0) {
            return text;
        }
    }
    free(text);
    return NULL;
}

void table_add(struct table *table, const char *format, ...)
{
    if (table == NULL) {
        return;
    }
    if (table->count == table->capacity) {
        size_t more = table->capacity == 0 ? 64 : 2 * table->capacity;
        char **cells = realloc(table->cells, more * sizeof(*cells));
        if (cells == NULL) {
            table->failed = true;
            return;
        }
        table->cells = cells;
        table->capacity = more;
    }
    va_list arguments;
    va_start(arguments, format);
    char *text = format_cell(format, arguments);
    va_end(arguments);
    table->failed = table->failed || text == NULL;
    table->cells[table->count++] = text;
}

/* Characters of UTF-8, which have no control characters among them: names that the wire
 * lets through. */
static size_t characters(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += ((unsigned char)*text & 0xc0u) != 0x80u;
    }
    return count;
}

static size_t widest(const struct table *table, size_t column)
{
    size_t most = 0;
    for (size_t i = column; i < table->count; i += table->width) {
        size_t size = characters(table->cells[i]);
        most = size > most ? size : most;
    }
    return most;
}

static void print_row(const struct table *table, size_t row, const size_t *widths)
{
    for (size_t k = 0; k < table->width; k++) {
        const char *cell = table->cells[row + k];
        int space = (int)(widths[k] - characters(cell));
        bool last = k + 1 == table->width;
        if (table->columns[k] == 'r') {
            printf("%*s%s", space, "", cell);
        } else {
            printf("%s%*s", cell, last ? 0 : space, "");
        }
        fputs(last ? "\n" : "  ", stdout);
    }
}

static void table_free(struct table *table)
{
    for (size_t i = 0; i < table->count; i++) {
        free(table->cells[i]);
    }
    free(table->cells);
    free(table);
}

int table_print(const struct ctl *ctl, struct table *table)
{
    enum { COLUMNS = 16 };
    size_t widths[COLUMNS];
    if (table == NULL || table->failed) {
        fputs("optctl: no memory\n", stderr);
        if (table != NULL) {
            table_free(table);
        }
        return EXIT_FAILED;
    }
    for (size_t k = 0; k < table->width; k++) {
        widths[k] = widest(table, k);
    }
    for (size_t row = 0; row + table->width <= table->count; row += table->width) {
        print_row(table, row, widths);
    }
    table_free(table);
    return ctl_done(ctl);
}
