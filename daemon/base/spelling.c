/* Distances between words: Damerau-Levenshtein, where no letter is changed twice ("optimal string alignment"). */
#include "base/spelling.h"

#include <stdbool.h>
#include <string.h>

#define LETTERS_MAX 40U /* a longer word or name is near none */
#define MISTAKES_MAX 2U
#define LETTERS_A_MISTAKE 3U

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* How many letters must be added, removed, changed, or swapped with the next to turn one into the other. */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][LETTERS_MAX + 1]; /* of a's letters: the one before the last, the last, the current */
    size_t *before = rows[0];
    size_t *last = rows[1];
    size_t *row = rows[2];
    const size_t length = strlen(b);
    for (size_t j = 0; j <= length; j++)
        last[j] = j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        row[0] = i;
        for (size_t j = 1; j <= length; j++) {
            const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            row[j] = least(least(row[j - 1], last[j]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (swapped)
                row[j] = least(row[j], before[j - 2] + 1);
        }
        size_t *const oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[length];
}

void spelling_try(struct spelling *spelling, const char *name)
{
    const size_t shorter = least(strlen(spelling->word), strlen(name));
    const size_t allowed = least(shorter / LETTERS_A_MISTAKE, MISTAKES_MAX);
    if (allowed == 0 || strlen(spelling->word) > LETTERS_MAX || strlen(name) > LETTERS_MAX)
        return;
    const size_t mistakes = distance(spelling->word, name);
    if (mistakes > allowed || (spelling->nearest != NULL && mistakes >= spelling->mistakes))
        return;
    spelling->nearest = name;
    spelling->mistakes = mistakes;
}
