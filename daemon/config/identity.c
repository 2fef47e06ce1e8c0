/* Looking names up: in this machine's files, among earlier answers, or by asking the system. */
#include "config/identity.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An answer of the system that is not in this machine's own files. */
struct answer {
    enum identity_kind kind;
    uint32_t id;
    struct answer *next;
    char name[];
};

static struct answer *answers; /* list: a configuration has few names */
static bool silent;

static bool find_answer(enum identity_kind kind, const char *name, uint32_t *id)
{
    for (const struct answer *answer = answers; answer != NULL; answer = answer->next)
        if (answer->kind == kind && strcmp(answer->name, name) == 0) {
            *id = answer->id;
            return true;
        }
    return false;
}

/* Without memory the name is merely unknown later. */
static void keep_answer(enum identity_kind kind, const char *name, uint32_t id)
{
    uint32_t known = 0;
    if (find_answer(kind, name, &known))
        return;
    struct answer *answer = calloc(1, sizeof(*answer) + strlen(name) + 1);
    if (answer == NULL)
        return;
    answer->kind = kind;
    answer->id = id;
    memcpy(answer->name, name, strlen(name) + 1);
    answer->next = answers;
    answers = answer;
}

static bool find_user_here(FILE *list, const char *name, uint32_t *id)
{
    const struct passwd *entry = NULL;
    while ((entry = fgetpwent(list)) != NULL) /* NOLINT(concurrency-mt-unsafe): there is one thread */
        if (strcmp(entry->pw_name, name) == 0) {
            *id = entry->pw_uid;
            return true;
        }
    return false;
}

static bool find_group_here(FILE *list, const char *name, uint32_t *id)
{
    const struct group *entry = NULL;
    while ((entry = fgetgrent(list)) != NULL) /* NOLINT(concurrency-mt-unsafe): there is one thread */
        if (strcmp(entry->gr_name, name) == 0) {
            *id = entry->gr_gid;
            return true;
        }
    return false;
}

static bool find_here(enum identity_kind kind, const char *name, uint32_t *id)
{
    FILE *list = fopen(kind == IDENTITY_USER ? "/etc/passwd" : "/etc/group", "re");
    if (list == NULL)
        return false;
    const bool found = kind == IDENTITY_USER ? find_user_here(list, name, id) : find_group_here(list, name, id);
    fclose(list);
    return found;
}

static bool ask_system(enum identity_kind kind, const char *name, uint32_t *id)
{
    const struct passwd *user = kind == IDENTITY_USER ? getpwnam(name) : NULL;
    const struct group *group = kind == IDENTITY_GROUP ? getgrnam(name) : NULL;
    if (user == NULL && group == NULL)
        return false;
    uint32_t here = 0;
    *id = user != NULL ? user->pw_uid : group->gr_gid;
    if (!find_here(kind, name, &here))
        keep_answer(kind, name, *id);
    return true;
}

bool identity_find(enum identity_kind kind, const char *name, uint32_t *id)
{
    if (!silent)
        return ask_system(kind, name, id);
    return find_here(kind, name, id) || find_answer(kind, name, id);
}

void identity_stop_asking(void)
{
    silent = true;
}

bool identity_asks(void)
{
    return !silent;
}

void identity_forget(void)
{
    while (answers != NULL) {
        struct answer *answer = answers;
        answers = answer->next;
        free(answer);
    }
    silent = false;
}
