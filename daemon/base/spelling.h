/* Spelling: the known name that somebody probably meant by an unknown one.
 *
 *     struct spelling guess = spelling_of(unknown);
 *     spelling_try(&guess, name);     for each known name
 *     ... guess.nearest ...           NULL: none is near
 *
 * Near means: a letter is missing, too many or another, or two are swapped. One such mistake for each third letter of the
 * shorter name, and at most two, so that a guess shares most of its letters with the word. */
#ifndef EVAPID_SPELLING_H
#define EVAPID_SPELLING_H

#include <stddef.h>

struct spelling {
    const char *word, *nearest;
    size_t mistakes; /* of nearest */
};

static inline struct spelling spelling_of(const char *word)
{
    return (struct spelling){ .word = word };
}

/* Compare the word with this name. The nearest name stays; of equally near ones the first. */
void spelling_try(struct spelling *spelling, const char *name);

#endif
