/* Doors: how the file of a Unix socket is made, so that at no time a user can connect whom it will exclude.
 *
 * chmod and chown are this program's own, in place of the C library's: they look at the file first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "net/door.h"

static char directory[] = "/tmp/evapid-door-XXXXXX";
static char path[sizeof(directory) + 8];
static uv_loop_t loop;
static struct door door;
static unsigned opened;

static struct {
    unsigned calls;
    mode_t before; /* the file's mode at the call */
    int connected; /* the result of connecting at that moment: 0 or an errno */
    uid_t owner;
    gid_t group;
    int error; /* to fail with; 0: it is done */
} change_of_mode, change_of_group;

static mode_t mode_of_file(void)
{
    struct stat file;
    assert_int_equal(lstat(path, &file), 0);
    return file.st_mode & 07777;
}

static int try_to_connect(void)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int error = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;
    close(fd);
    return error;
}

int chmod(const char *file, mode_t mode)
{
    assert_string_equal(file, path);
    change_of_mode.calls++;
    change_of_mode.before = mode_of_file();
    change_of_mode.connected = try_to_connect();
    errno = change_of_mode.error;
    return change_of_mode.error != 0 ? -1 : fchmodat(AT_FDCWD, file, mode, 0);
}

int chown(const char *file, uid_t owner, gid_t group)
{
    assert_string_equal(file, path);
    assert_true(change_of_mode.calls == 0 ||
                mode_of_file() == 0600); /* a right of the file is then for its new group */
    change_of_group.calls++;
    change_of_group.before = mode_of_file();
    change_of_group.owner = owner;
    change_of_group.group = group;
    errno = change_of_group.error;
    return change_of_group.error != 0 ? -1 : 0;
}

static void on_opened(void *owner, int fd)
{
    assert_ptr_equal(owner, &opened);
    opened++;
    close(fd);
}

static const char *open_door_at(const char *there, const struct door_access *access)
{
    return door_open(&door, &loop, there, access, (struct inherited_door){ .fd = -1 }, on_opened, &opened);
}

static const char *open_door(const struct door_access *access)
{
    return open_door_at(path, access);
}

static const char *user_name(uid_t user)
{
    return getpwuid(user)->pw_name; /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

#define TURN_UNTIL_OPENED(count)                                                                                       \
    do {                                                                                                               \
        for (unsigned turns_ = 0; opened < (count); turns_++) {                                                        \
            assert_true(turns_ < 1000);                                                                                \
            uv_run(&loop, UV_RUN_NOWAIT);                                                                              \
        }                                                                                                              \
    } while (0)

static int set_up(void **state)
{
    (void)state;
    log_open(LEVEL_ERROR);
    memset(&change_of_mode, 0, sizeof(change_of_mode));
    memset(&change_of_group, 0, sizeof(change_of_group));
    opened = 0;
    memcpy(directory + sizeof(directory) - 7, "XXXXXX", 7);
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/socket", directory);
    return uv_loop_init(&loop);
}

static int tear_down(void **state)
{
    (void)state;
    door_close(&door);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop) != 0 || rmdir(directory) != 0; /* the file is gone */
}

static void test_nobody_may_connect_before_the_file_has_its_mode(void **state)
{
    (void)state;
    static const mode_t umasks[] = { 0, 022, 0777 };
    for (size_t i = 0; i < 3; i++) {
        const struct door_access rules = { .mode = 0666, .group = DOOR_OWN_GROUP };
        const mode_t before = umask(umasks[i]);
        change_of_mode.calls = 0;
        assert_null(open_door(&rules));
        assert_int_equal(umask(before), umasks[i]); /* the file has its old state */
        assert_int_equal(change_of_mode.calls, 1);
        assert_int_equal(change_of_mode.before, 0);
        assert_true(change_of_mode.connected == EACCES ||
                    change_of_mode.connected == ECONNREFUSED); /* the second: root */
        assert_int_equal(change_of_group.calls, 0);
        assert_int_equal(mode_of_file(), 0666);
        assert_int_equal(try_to_connect(), 0);
        uv_run(&loop, UV_RUN_NOWAIT);
        assert_int_equal(opened, i + 1);
        door_close(&door);
        uv_run(&loop, UV_RUN_DEFAULT);
    }
}

static void test_the_group_is_given_before_the_mode_and_the_owner_stays(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0640, .group = 54321 };
    assert_null(open_door(&rules));
    assert_int_equal(change_of_group.calls, 1);
    assert_int_equal(change_of_group.before, 0);
    assert_int_equal(change_of_group.owner, (uid_t)-1);
    assert_int_equal(change_of_group.group, 54321);
    assert_int_equal(mode_of_file(), 0640);
}

static void test_a_group_that_cannot_be_given_leaves_no_file(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0660, .group = 54321 };
    change_of_group.error = EPERM;
    assert_string_equal(open_door(&rules), "cannot give it to group 54321 (group): Operation not permitted");
    assert_int_equal(change_of_mode.calls, 0);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_a_mode_that_cannot_be_given_leaves_no_file(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0660, .group = DOOR_OWN_GROUP };
    change_of_mode.error = EROFS;
    assert_string_equal(open_door(&rules), strerror(EROFS));
    assert_int_equal(access(path, F_OK), -1);
}

/* Somebody else's file in the way is not ours. */
static void test_a_file_in_the_way_stays(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0660, .group = DOOR_OWN_GROUP };
    const int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_string_equal(open_door(&rules), "a file of that name exists and is not a socket");
    assert_int_equal(mode_of_file(), 0600);
    close(fd);
    unlink(path);
}

/* A user who starts evapid by hand must learn which folder is missing, and whose it must be. */
static void test_a_folder_that_is_missing_is_named_with_the_command_that_makes_it(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0660, .group = 54321 };
    char missing[sizeof(directory) + 16], expected[256];
    snprintf(missing, sizeof(missing), "%s/no/folder", directory);
    snprintf(expected, sizeof(expected),
             "the folder %s/no is missing; make it as root: install -d -m 750 -o %s -g 54321 %s/no", directory,
             user_name(geteuid()), directory);
    assert_string_equal(open_door_at(missing, &rules), expected);
}

static void test_a_file_where_the_folder_is_to_be_is_named(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0660, .group = DOOR_OWN_GROUP };
    char below[sizeof(directory) + 16], expected[256];
    const int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    snprintf(below, sizeof(below), "%s/door", path);
    snprintf(expected, sizeof(expected), "%s is not a folder, or lies below a file", path);
    assert_string_equal(open_door_at(below, &rules), expected);
    close(fd);
    unlink(path);
}

static void test_a_folder_that_is_another_s_is_named_with_the_user(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0660, .group = DOOR_OWN_GROUP };
    static const mode_t modes[] = { 0, 0111 };                  /* it can't be searched; it can't be written */
    const uid_t own = geteuid(), user = own != 0 ? own : 65534; /* root may do all */
    char expected[256];
    snprintf(expected, sizeof(expected), "user %s may not make a file in the folder %s", user_name(user), directory);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(fchmodat(AT_FDCWD, directory, modes[i], 0), 0);
        assert_int_equal(seteuid(user), 0);
        const char *why = open_door(&rules);
        assert_int_equal(seteuid(own), 0);
        assert_string_equal(why, expected);
    }
}

static void test_our_own_user_comes_in_whoever_is_listed(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0600, .group = DOOR_OWN_GROUP, .restricted = true };
    assert_null(open_door(&rules));
    assert_int_equal(try_to_connect(), 0);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(opened, 1);
    assert_int_equal(door.refused, 0);
}

/* ---- reload ------------------------------------------------------------------------------------------------------- */

static void forget_changes(void)
{
    memset(&change_of_mode, 0, sizeof(change_of_mode));
    memset(&change_of_group, 0, sizeof(change_of_group));
}

static void test_another_mode_and_group_are_given_or_all_is_as_it_was(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0660, .group = DOOR_OWN_GROUP };
    const struct door_access others = { .mode = 0604, .group = 54321 };
    struct door_change change;
    assert_null(open_door(&rules));
    const int fd = door.fd;
    forget_changes();
    change_of_group.error = EPERM;
    assert_string_equal(door_prepare(&change, &loop, &door, path, &others),
                        "cannot give it to group 54321 (group): Operation not permitted");
    assert_int_equal(change_of_group.before, 0600); /* what both modes allow */
    assert_int_equal(mode_of_file(), 0660);
    forget_changes();
    assert_null(door_prepare(&change, &loop, &door, path, &others));
    assert_int_equal(change_of_group.group, 54321);
    assert_int_equal(mode_of_file(), 0604);
    door_cancel(&change, &door);
    assert_int_equal(mode_of_file(), 0660);
    assert_null(door_prepare(&change, &loop, &door, path, &others));
    door_commit(&change, &door);
    assert_int_equal(mode_of_file(), 0604);
    assert_int_equal(door.fd, fd);
    assert_int_equal(try_to_connect(), 0);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(opened, 1);
}

static void test_a_door_moves_or_stays_where_it_is(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0666, .group = DOOR_OWN_GROUP };
    struct door_change change;
    char first[sizeof(path)];
    char other[sizeof(path) + 2];
    assert_null(open_door(&rules));
    memcpy(first, path, sizeof(path));
    for (int turn = 0; turn < 2; turn++) {
        snprintf(other, sizeof(other), "%s/2", directory);
        memcpy(path, other, sizeof(path)); /* which file is looked at when its mode is changed */
        assert_null(door_prepare(&change, &loop, &door, path, &rules));
        assert_string_equal(door.path, first);
        assert_int_equal(try_to_connect(), 0);
        if (turn == 0) {
            door_cancel(&change, &door);
            assert_int_equal(access(path, F_OK), -1);
            memcpy(path, first, sizeof(path));
            assert_int_equal(try_to_connect(), 0);
        }
    }
    door_commit(&change, &door);
    assert_int_equal(access(first, F_OK), -1);
    assert_string_equal(door.path, path);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(opened, 1); /* a client of the prepared door; the other door had none */
    assert_int_equal(try_to_connect(), 0);
    TURN_UNTIL_OPENED(2);
}

static void test_a_door_whose_file_has_gone_is_made_again(void **state)
{
    (void)state;
    const struct door_access rules = { .mode = 0666, .group = DOOR_OWN_GROUP };
    struct door_change change;
    assert_null(open_door(&rules));
    assert_int_equal(unlink(path), 0);
    assert_null(door_prepare(&change, &loop, &door, path, &rules));
    door_commit(&change, &door);
    assert_int_equal(try_to_connect(), 0);
    TURN_UNTIL_OPENED(1);
}

#define WITH_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DIRECTORY(test_nobody_may_connect_before_the_file_has_its_mode),
        WITH_DIRECTORY(test_the_group_is_given_before_the_mode_and_the_owner_stays),
        WITH_DIRECTORY(test_a_group_that_cannot_be_given_leaves_no_file),
        WITH_DIRECTORY(test_a_mode_that_cannot_be_given_leaves_no_file),
        WITH_DIRECTORY(test_a_file_in_the_way_stays),
        WITH_DIRECTORY(test_a_folder_that_is_missing_is_named_with_the_command_that_makes_it),
        WITH_DIRECTORY(test_a_file_where_the_folder_is_to_be_is_named),
        WITH_DIRECTORY(test_a_folder_that_is_another_s_is_named_with_the_user),
        WITH_DIRECTORY(test_our_own_user_comes_in_whoever_is_listed),
        WITH_DIRECTORY(test_another_mode_and_group_are_given_or_all_is_as_it_was),
        WITH_DIRECTORY(test_a_door_moves_or_stays_where_it_is),
        WITH_DIRECTORY(test_a_door_whose_file_has_gone_is_made_again),
    };
    return cmocka_run_group_tests_name("door", tests, NULL, NULL);
}
