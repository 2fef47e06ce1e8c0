/* Replacing: both ends of the conversation, each against an end that breaks off or says something else. tests/system
 * tests how long a whole evapid waits for a silent end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/replace.h"
#include "memory.h"

#define REQUEST "{\"command\":\"replace\"}\n"
#define BATCH 128 /* descriptors in one message */
#define RECORD (HOLDING_NAME_MAX + 1)

/* ---- a place to meet ------------------------------------------------------------------------------------------------ */

static char folder[] = "/tmp/evapid-test-XXXXXX";
static char path[64];
static int listening = -1;

static int open_path(void **state)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    (void)state;
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof(path), "%s/control.sock", folder);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return listening < 0 || bind(listening, (const struct sockaddr *)&address, sizeof(address)) != 0 ||
           listen(listening, 8) != 0;
}

static int close_path(void **state)
{
    (void)state;
    close(listening);
    unlink(path);
    return rmdir(folder);
}

/* Read to the end of a line, or of the connection. */
static void read_line(int fd, char *line, size_t room)
{
    size_t length = 0;
    while (length + 1 < room && recv(fd, line + length, 1, 0) == 1)
        if (line[length++] == '\n')
            break;
    line[length] = '\0';
}

/* ---- the one that runs, in a thread --------------------------------------------------------------------------------- */

struct runner {
    const struct descriptors *descriptors; /* NULL: it sends something else */
    const char *says;
    size_t length;
    char request[128];
    const char *why; /* the result */
    replace_word offer;
};

static void *run(void *of)
{
    struct runner *runner = of;
    const int fd = accept(listening, NULL, NULL);
    read_line(fd, runner->request, sizeof(runner->request));
    if (runner->descriptors != NULL) {
        fcntl(fd, F_SETFL, O_NONBLOCK); /* as in the event loop */
        runner->why = replace_give(fd, runner->descriptors, &runner->offer);
    } else {
        send(fd, runner->says, runner->length, MSG_NOSIGNAL);
    }
    close(fd);
    return NULL;
}

static void start(pthread_t *thread, void *(*of)(void *), void *argument)
{
    assert_int_equal(pthread_create(thread, NULL, of, argument), 0);
}

/* Memory files, each containing its own number. */
static void hold_files(struct descriptors *descriptors, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const int memfd = memfd_create("held", MFD_CLOEXEC);
        assert_int_equal(write(memfd, &i, sizeof(i)), sizeof(i));
        assert_true(descriptors_add(descriptors, memfd, "client-%u", i));
    }
}

static void assert_files(struct descriptors *descriptors, uint32_t count)
{
    assert_int_equal(HASH_COUNT(descriptors->all), count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = UINT32_MAX;
        const int memfd = descriptors_remove(descriptors, "client-%u", i);
        assert_int_equal(pread(memfd, &number, sizeof(number), 0), sizeof(number));
        assert_int_equal(number, i);
        assert_true((fcntl(memfd, F_GETFD) & FD_CLOEXEC) != 0);
        close(memfd);
    }
}

static void test_everything_goes_over_by_its_name(void **state)
{
    static const uint32_t counts[] = { 1, 2, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH, 333 };
    (void)state;
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        struct descriptors given = { 0 };
        struct descriptors taken = { 0 };
        struct runner runner = { .descriptors = &given, .why = "never asked" };
        pthread_t thread;
        int fd = -1;
        hold_files(&given, counts[i]);
        start(&thread, run, &runner);
        assert_null(replace_ask(path, &taken, &fd));
        assert_string_equal(runner.request, REQUEST);
        assert_null(replace_begin(fd));
        assert_null(replace_claim(fd, &runner.offer));
        pthread_join(thread, NULL);
        assert_null(runner.why);
        assert_int_equal(runner.offer, REPLACE_CLAIMED);
        assert_files(&taken, counts[i]);
        assert_files(&given, counts[i]); /* they are still its own */
    }
}

/* ---- the one that runs is a bad one --------------------------------------------------------------------------------- */

static void test_what_is_no_answer_is_refused(void **state)
{
    static const struct {
        const char *says, *why;
    } cases[] = {
        { "", "the running evapid does not answer" },
        { "hello", "the running evapid does not answer" },
        { "hello\n", "the running evapid refuses: it does not say why" },
        { "{}\n", "the running evapid refuses: it does not say why" },
        { "{\"replace\":7}\n", "the running evapid refuses: it does not say why" },
        { "{\"replace\":{\"descriptors\":0}}\n", "the running evapid refuses: it does not say why" },
        { "{\"replace\":{\"descriptors\":-3}}\n", "the running evapid refuses: it does not say why" },
        { "{\"replace\":{\"descriptors\":\"3\"}}\n", "the running evapid refuses: it does not say why" },
        { "{\"error\":\"not replaced\",\"detail\":\"not today\"}\n", "the running evapid refuses: not today" },
        { "{\"replace\":{\"descriptors\":1}}\n", "the running evapid broke off" },
        { "{\"replace\":{\"descriptors\":1}}\nledger", "the running evapid broke off" },
        { "{\"replace\":{\"descriptors\":9223372036854775807}}\n", "the running evapid broke off" },
        { "{\"replace\":{\"descriptors\":1}}\n0123456789abcdef0123456789abcdef",
          "not all descriptors have arrived: too few may be open (ulimit -n)" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct runner runner = { .says = cases[i].says, .length = strlen(cases[i].says) };
        struct descriptors taken = { 0 };
        pthread_t thread;
        int fd = -1;
        start(&thread, run, &runner);
        assert_string_equal(replace_ask(path, &taken, &fd), cases[i].why);
        pthread_join(thread, NULL);
        assert_null(taken.all);
        close(fd);
    }
}

static void test_nobody_is_there(void **state)
{
    struct descriptors taken = { 0 };
    char nowhere[80];
    int fd = -1;
    (void)state;
    snprintf(nowhere, sizeof(nowhere), "%s/nobody", folder);
    assert_string_equal(replace_ask(nowhere, &taken, &fd), "no evapid runs there: start without --replace");
    close(fd);
    assert_string_equal(replace_ask("/dev/null", &taken, &fd), "no evapid runs there: start without --replace");
    close(fd);
}

/* Send a message with names and some descriptors, as give_batch does. */
static void send_batch(int fd, const char names[][RECORD], size_t count, const int *fds, size_t descriptors)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(8 * sizeof(int))];
    } control;
    memset(&control, 0, sizeof(control));
    struct iovec iov = { (void *)(uintptr_t)names, count * RECORD };
    struct msghdr message = { .msg_iov = &iov,
                              .msg_iovlen = 1,
                              .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE(descriptors * sizeof(int)) };
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(descriptors * sizeof(int));
    memcpy(CMSG_DATA(c), fds, descriptors * sizeof(int));
    assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), (ssize_t)(count * RECORD));
}

struct batch {
    const char (*names)[RECORD];
    size_t count, descriptors;
};

static void *run_batch(void *of)
{
    static const char answer[] = "{\"replace\":{\"descriptors\":2}}\n";
    const struct batch *batch = of;
    char line[128];
    const int fds[4] = { STDERR_FILENO, STDERR_FILENO, STDERR_FILENO, STDERR_FILENO };
    const int fd = accept(listening, NULL, NULL);
    read_line(fd, line, sizeof(line));
    send(fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL);
    send_batch(fd, batch->names, batch->count, fds, batch->descriptors);
    close(fd);
    return NULL;
}

static void test_names_and_descriptors_that_do_not_fit_each_other_are_refused(void **state)
{
    static const char good[2][RECORD] = { "ledger", "state" };
    static const char twice[2][RECORD] = { "ledger", "ledger" };
    static const char unended[2][RECORD] = { "0123456789abcdef0123456789abcde",
                                             { 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x',
                                               'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x',
                                               'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x', 'x' } };
    static const struct {
        struct batch batch;
        const char *why;
    } cases[] = {
        { { good, 2, 2 }, NULL },
        { { unended, 2, 2 }, NULL },
        { { twice, 2, 2 }, "no memory for its descriptors" },
        { { good, 2, 1 }, "not all descriptors have arrived: too few may be open (ulimit -n)" },
        { { good, 2, 3 }, "not all descriptors have arrived: too few may be open (ulimit -n)" },
        { { good, 1, 2 }, "the running evapid broke off" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct descriptors taken = { 0 };
        struct batch batch = cases[i].batch;
        pthread_t thread;
        int fd = -1;
        start(&thread, run_batch, &batch);
        const char *why = replace_ask(path, &taken, &fd);
        pthread_join(thread, NULL);
        assert_int_equal(why == NULL, cases[i].why == NULL);
        if (why != NULL)
            assert_string_equal(why, cases[i].why);
        descriptors_clear(&taken, true);
        close(fd);
    }
}

/* A connection that ends without an answer belongs to an evapid that was killed, and has not withdrawn its offer. */
static void test_only_go_is_go_and_the_end_is_too(void **state)
{
    static const struct {
        const char *answer;
        bool begins;
    } cases[] = { { "go\n", true },  { "", true },    { "go", true },      { "go on\n", false },
                  { "no\n", false }, { "\n", false }, { "ready\n", false } };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int ends[2];
        char line[64];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        send(ends[1], cases[i].answer, strlen(cases[i].answer), 0);
        shutdown(ends[1], SHUT_WR);
        const char *why = replace_begin(ends[0]);
        if (cases[i].begins)
            assert_null(why);
        else
            assert_string_equal(why, "the running evapid goes on");
        read_line(ends[1], line, sizeof(line));
        assert_string_equal(line, "ready\n");
        close(ends[0]);
        close(ends[1]);
    }
}

static void test_only_what_is_offered_can_be_claimed(void **state)
{
    (void)state;
    for (uint32_t before = REPLACE_KEPT; before <= REPLACE_CLAIMED; before++) {
        replace_word offer = before;
        int ends[2];
        char line[64];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        const char *why = replace_claim(ends[0], &offer);
        read_line(ends[1], line, sizeof(line));
        if (before == REPLACE_OFFERED) {
            assert_null(why);
            assert_string_equal(line, "running\n");
            assert_int_equal(offer, REPLACE_CLAIMED);
        } else {
            assert_string_equal(why, "the running evapid goes on");
            assert_string_equal(line, "");
            assert_int_equal(offer, before);
        }
        assert_true(fcntl(ends[0], F_GETFD) < 0); /* closed */
        close(ends[1]);
    }
}

/* ---- the successor is a bad one ------------------------------------------------------------------------------------- */

struct successor {
    int fd;
    size_t takes; /* the least bytes that it reads, if they arrive; closes their descriptors */
    const char *says;
    replace_word *claims; /* after "go"; NULL: nothing */
    char last[64];        /* what it was sent after that */
};

static void *succeed(void *of)
{
    struct successor *successor = of;
    for (size_t taken = 0; taken < successor->takes;) {
        char bytes[4096];
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(BATCH * sizeof(int))];
        } control;
        struct iovec iov = { bytes,
                             successor->takes - taken < sizeof(bytes) ? successor->takes - taken : sizeof(bytes) };
        struct msghdr message = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)
        };
        const ssize_t n = recvmsg(successor->fd, &message, 0);
        if (n <= 0)
            break;
        taken += (size_t)n;
        const struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        for (size_t i = 0; c != NULL && i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd = -1;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            close(fd);
        }
    }
    const bool is_ready = strncmp(successor->says, "ready\n", 6) == 0;
    send(successor->fd, successor->says, strlen(successor->says), MSG_NOSIGNAL);
    if (!is_ready || successor->claims == NULL)
        shutdown(successor->fd, SHUT_WR);
    if (is_ready)
        read_line(successor->fd, successor->last, sizeof(successor->last));
    if (successor->claims != NULL)
        atomic_store(successor->claims, REPLACE_CLAIMED);
    close(successor->fd);
    return NULL;
}

static size_t open_descriptors(void)
{
    size_t count = 0;
    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void test_a_successor_that_breaks_off_gets_nothing(void **state)
{
    struct descriptors given = { 0 };
    char answer[128];
    (void)state;
    hold_files(&given, 300);
    const size_t open_before = open_descriptors();
    const size_t head =
        (size_t)snprintf(answer, sizeof(answer), "{\"replace\":{\"pid\":%ld,\"descriptors\":300}}\n", (long)getpid());
    const size_t all = head + (size_t)300 * RECORD;
    const struct {
        size_t takes;
        const char *says;
    } cases[] = { { 0, "" },
                  { 1, "" },
                  { head, "" },
                  { head + 1, "" },
                  { all, "" },
                  { all, "ready" },
                  { all, "ready!\n" },
                  { all, "steady\n" },
                  { all, "\n" },
                  { all, "readyready\n" },
                  { all, "ready\n" },
                  { all, "ready\nrun" },
                  { all, "ready\nwalking\n" },
                  { all, "ready\nrunning\n" } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int ends[2];
        pthread_t thread;
        struct successor successor = { .takes = cases[i].takes, .says = cases[i].says };
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        successor.fd = ends[1];
        start(&thread, succeed, &successor);
        replace_word offer = REPLACE_KEPT;
        const char *why = replace_give(ends[0], &given, &offer);
        pthread_join(thread, NULL);
        close(ends[0]);
        if (i + 1 == sizeof(cases) / sizeof(*cases)) {
            assert_null(why);
        } else {
            assert_non_null(why);
            assert_int_equal(offer, REPLACE_KEPT);
        }
        assert_string_equal(successor.last, strncmp(cases[i].says, "ready\n", 6) == 0 ? "go\n" : "");
        assert_int_equal(open_descriptors(), open_before);
    }
    assert_files(&given, 300);
}

/* It has claimed everything, and its connection ends before "running": it has changed nothing. */
static void test_a_successor_that_dies_between_its_claim_and_its_word_loses_it_again(void **state)
{
    struct descriptors given = { 0 };
    char answer[128];
    int ends[2];
    pthread_t thread;
    replace_word offer = REPLACE_KEPT;
    (void)state;
    hold_files(&given, 1);
    const size_t head =
        (size_t)snprintf(answer, sizeof(answer), "{\"replace\":{\"pid\":%ld,\"descriptors\":1}}\n", (long)getpid());
    struct successor successor = { .takes = head + RECORD, .says = "ready\n", .claims = &offer };
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    successor.fd = ends[1];
    start(&thread, succeed, &successor);
    assert_string_equal(replace_give(ends[0], &given, &offer), "the successor died before it ran");
    pthread_join(thread, NULL);
    assert_int_equal(offer, REPLACE_KEPT);
    close(ends[0]);
    descriptors_clear(&given, true);
}

static void test_without_memory_the_successor_gives_up(void **state)
{
    long calls = 0;
    (void)state;
    for (const char *why = "not asked yet"; why != NULL; calls++) {
        struct descriptors given = { 0 };
        struct descriptors taken = { 0 };
        struct runner runner = { .descriptors = &given };
        pthread_t thread;
        int fd = -1;
        hold_files(&given, 3);
        start(&thread, run, &runner);
        memory_limit(calls);
        why = replace_ask(path, &taken, &fd);
        memory_limit(-1);
        if (why != NULL) {
            close(fd);
            pthread_join(thread, NULL);
            assert_string_equal(runner.why, "the successor did not get ready");
            descriptors_clear(&taken, true);
        } else {
            assert_null(replace_begin(fd));
            assert_null(replace_claim(fd, &runner.offer));
            pthread_join(thread, NULL);
            assert_files(&taken, 3);
        }
        descriptors_clear(&given, true);
    }
    assert_in_range(calls, 3, 20);
}

/* ---- who may -------------------------------------------------------------------------------------------------------- */

/* Connect as another user, in another process; returns our end. */
static int connect_as(uid_t uid)
{
    const pid_t child = fork();
    if (child == 0) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const bool there = setuid(uid) == 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
        _exit(there ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status == 0 ? accept(listening, NULL, NULL) : -1;
}

static void test_root_and_our_own_user_may(void **state)
{
    int ends[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_null(replace_permit(ends[0]));
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(pipe(ends), 0);
    assert_string_equal(replace_permit(ends[0]), "your user cannot be determined");
    close(ends[0]);
    close(ends[1]);
    if (geteuid() != 0)
        return; /* nobody else can be had */
    assert_true(chmod(folder, 0755) == 0 && chmod(path, 0666) == 0);
    const int fd = connect_as(65534);
    assert_true(fd >= 0);
    assert_string_equal(replace_permit(fd), "only root and evapid's own user may take over");
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_goes_over_by_its_name),
        cmocka_unit_test(test_what_is_no_answer_is_refused),
        cmocka_unit_test(test_nobody_is_there),
        cmocka_unit_test(test_names_and_descriptors_that_do_not_fit_each_other_are_refused),
        cmocka_unit_test(test_only_go_is_go_and_the_end_is_too),
        cmocka_unit_test(test_only_what_is_offered_can_be_claimed),
        cmocka_unit_test(test_a_successor_that_breaks_off_gets_nothing),
        cmocka_unit_test(test_a_successor_that_dies_between_its_claim_and_its_word_loses_it_again),
        cmocka_unit_test(test_without_memory_the_successor_gives_up),
        cmocka_unit_test(test_root_and_our_own_user_may),
    };
    return cmocka_run_group_tests_name("replace", tests, open_path, close_path);
}
