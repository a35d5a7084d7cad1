/* SPDX-License-Identifier: Apache-2.0 */
/* An ebb that is stopped or hangs, and one that works at something long, before who asks it. */
#include "vmm/client.h"

#include "mm/base/types.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SILENCE_MS 100u
#define BUSY_SILENCE_MS 500u /* where the server has to answer within it: on a loaded machine it may be some time */
#define ANSWER "HTTP/1.1 200 OK\r\n\r\n{\"value\": 7}"

struct server {
    struct sockaddr_un address;
    char directory[32];
    int fd;
    unsigned nr_others; /* requests "GET / " that it answers before the one that takes long */
    const char *first;  /* sent at once of the answer to that one */
    pthread_t thread;
};

static void set_up(struct server *s, int backlog)
{
    *s = (struct server){.address.sun_family = AF_UNIX, .directory = "/tmp/ebb-client-XXXXXX", .first = ""};
    ck_assert_ptr_nonnull(mkdtemp(s->directory));
    snprintf(s->address.sun_path, sizeof(s->address.sun_path), "%s/api.sock", s->directory);
    s->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(s->fd, (struct sockaddr *)&s->address, sizeof(s->address)), 0);
    ck_assert_int_eq(listen(s->fd, backlog), 0);
}

static void tear_down(struct server *s)
{
    close(s->fd);
    unlink(s->address.sun_path);
    ck_assert_int_eq(rmdir(s->directory), 0);
}

static int ask(const struct server *s, unsigned silence_ms, const char *method, json_t **out, struct diag *diag)
{
    *out = NULL;
    return client_request_within(silence_ms, s->address.sun_path, method, "/memory/free", NULL, out, diag);
}

static void send_text(int fd, const char *text)
{
    ck_assert_int_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/*
 * Answers the request that is not "GET / " when nr_others of those were answered; then no more. Ends without an answer
 * when the listener is shut down.
 */
static void *serve(void *arg)
{
    struct server *s = arg;
    int late = -1;
    for (unsigned nr = 0; late < 0 || nr < s->nr_others;) {
        char request[1024] = "";
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0) {
            close(late);
            return NULL;
        }
        ck_assert_int_gt(recv(fd, request, sizeof(request) - 1, 0), 0);
        if (strncmp(request, "GET / ", 6) == 0) {
            send_text(fd, ANSWER);
            close(fd);
            nr++;
        } else {
            ck_assert_int_lt(late, 0);
            late = fd;
            send_text(late, s->first);
        }
    }
    send_text(late, &ANSWER[strlen(s->first)]);
    close(late);
    return NULL;
}

START_TEST(test_client_ebb_that_hangs_is_told_after_a_while)
{
    static const char *const methods[] = {"GET", "PUT"};
    struct diag diag = {0};
    struct server s;
    char who[40];
    json_t *out;
    set_up(&s, 8);
    ck_assert_int_eq(ask(&s, SILENCE_MS, methods[_i], &out, &diag), -1);
    snprintf(who, sizeof(who), "process %ld", (long)getpid());
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_msg(strstr(diag.text, who) && strstr(diag.text, "hangs"), "%s", diag.text);
    tear_down(&s);
}
END_TEST

START_TEST(test_client_ebb_that_takes_no_more_connections_is_told_after_a_while)
{
    struct diag diag = {0};
    struct server s;
    json_t *out;
    int fds[4];
    set_up(&s, 0);
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(fds[i], (struct sockaddr *)&s.address, sizeof(s.address));
    }
    ck_assert_int_eq(ask(&s, SILENCE_MS, "GET", &out, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_msg(strstr(diag.text, "takes no more requests"), "%s", diag.text);
    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    tear_down(&s);
}
END_TEST

START_TEST(test_client_ebb_that_is_stopped_is_told_with_how_to_let_it_go_on)
{
    struct diag diag = {0};
    struct server s;
    char how[40];
    json_t *out;
    int status;
    set_up(&s, 8);
    pid_t pid = fork();
    if (pid == 0) {
        listen(s.fd, 8); /* the listener is this process now */
        raise(SIGSTOP);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
    ck_assert(WIFSTOPPED(status));
    ck_assert_int_eq(ask(&s, SILENCE_MS, "GET", &out, &diag), -1);
    snprintf(how, sizeof(how), "kill -CONT %ld", (long)pid);
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_msg(strstr(diag.text, "is stopped") && strstr(diag.text, how), "%s", diag.text);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    tear_down(&s);
}
END_TEST

/* Seven times of silence, more than a GET is given, or a first byte and then seven. */
START_TEST(test_client_long_work_is_waited_for_while_ebb_answers_others)
{
    struct diag diag = {0};
    struct server s;
    json_t *out;
    set_up(&s, 8);
    s.nr_others = 7;
    s.first = _i ? "H" : "";
    ck_assert_int_eq(pthread_create(&s.thread, NULL, serve, &s), 0);
    ck_assert_msg(ask(&s, BUSY_SILENCE_MS, "PUT", &out, &diag) == 0, "%s", diag.text);
    ck_assert_int_eq(json_integer_value(json_object_get(out, "value")), 7);
    json_decref(out);
    pthread_join(s.thread, NULL);
    tear_down(&s);
}
END_TEST

START_TEST(test_client_view_that_never_comes_is_told_although_ebb_answers_others)
{
    struct diag diag = {0};
    struct server s;
    json_t *out;
    set_up(&s, 8);
    s.nr_others = 100;
    ck_assert_int_eq(pthread_create(&s.thread, NULL, serve, &s), 0);
    ck_assert_int_eq(ask(&s, SILENCE_MS, "GET", &out, &diag), -1);
    ck_assert_int_eq(diag.code, EXIT_GUEST);
    ck_assert_msg(strstr(diag.text, "has not answered"), "%s", diag.text);
    ck_assert_int_eq(shutdown(s.fd, SHUT_RDWR), 0);
    pthread_join(s.thread, NULL);
    tear_down(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client");
    TCase *tc = tcase_create("client");
    tcase_add_loop_test(tc, test_client_ebb_that_hangs_is_told_after_a_while, 0, 2);
    tcase_add_test(tc, test_client_ebb_that_takes_no_more_connections_is_told_after_a_while);
    tcase_add_test(tc, test_client_ebb_that_is_stopped_is_told_with_how_to_let_it_go_on);
    tcase_add_loop_test(tc, test_client_long_work_is_waited_for_while_ebb_answers_others, 0, 2);
    tcase_add_test(tc, test_client_view_that_never_comes_is_told_although_ebb_answers_others);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
