/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/client.h"

#include "vmm/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_ANSWER_BYTES (16u << 20)
#define GET_SILENCES 6u

struct call {
    int fd;
    const char *socket_path;
    unsigned silence_ms;
    bool may_last; /* as long as other requests are answered */
    struct diag *diag;
};

static int broken(struct diag *diag, const char *why)
{
    return diag_set(diag, EXIT_GUEST, "the answer of ebb cannot be read: %s; is it of another version?", why);
}

static int send_all(int fd, const char *text, struct diag *diag)
{
    size_t left = strlen(text);

    while (left) {
        ssize_t sent = send(fd, text, left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return diag_set(diag, EXIT_GUEST, "ebb hung up: %s", strerror(errno));
        text += sent;
        left -= (size_t)sent;
    }
    return 0;
}

/* --- an ebb that says nothing -------------------------------------------------------------------------- */

/* True when process @pid is stopped, by a signal or a debugger. */
static bool is_stopped(pid_t pid)
{
    char path[40], text[256] = "";

    snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    size_t nr = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[nr] = '\0';
    const char *state = strrchr(text, ')'); /* the end of the name, proc(5) */
    return state && (strncmp(state, ") T", 3) == 0 || strncmp(state, ") t", 3) == 0);
}

/* True when another request, one that nothing holds up, is answered, or refused as at the end of a run. */
static bool answers_others(const struct call *c)
{
    const char *request = "GET / HTTP/1.0\r\nHost: ebb\r\n\r\n";
    struct diag refused = {0};
    int fd = socket_connect(c->socket_path, c->silence_ms, &refused);

    if (fd < 0)
        return refused.code != EXIT_GUEST;
    struct pollfd in = {.fd = fd, .events = POLLIN};
    bool answered = send_all(fd, request, &refused) || poll(&in, 1, (int)c->silence_ms) > 0;
    close(fd);
    return answered;
}

/* After @nr_silences times of silence: 0 when the answer is there or may come yet, or -1 with diag. */
static int wait_on(const struct call *c, unsigned nr_silences)
{
    struct pollfd in = {.fd = c->fd, .events = POLLIN};
    struct ucred peer = {0}; /* who listens */
    socklen_t bytes = sizeof(peer);
    char who[40] = "that ebb";

    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && peer.pid > 0) /* 0: of another container */
        snprintf(who, sizeof(who), "that ebb, process %ld,", (long)peer.pid);
    if (peer.pid > 0 && is_stopped(peer.pid))
        return diag_set(c->diag, EXIT_GUEST, "%s is stopped; `kill -CONT %ld` lets it go on", who, (long)peer.pid);
    bool alive = answers_others(c);
    if ((alive && (c->may_last || nr_silences < GET_SILENCES)) || poll(&in, 1, 0) > 0)
        return 0;
    return diag_set(c->diag, EXIT_GUEST,
                    "%s has not answered for %.3g seconds: it hangs, or the host is overloaded; try again, or end it "
                    "with `kill`",
                    who, (nr_silences + !alive) * c->silence_ms / 1000.0);
}

/* 0 as soon as there is something to receive, or -1 with diag: nothing will come. */
static int await(const struct call *c)
{
    struct pollfd in = {.fd = c->fd, .events = POLLIN};
    int nr;

    for (unsigned nr_silences = 0;;) {
        nr = poll(&in, 1, (int)c->silence_ms);
        if (nr > 0)
            return 0;
        if (nr < 0 && errno != EINTR)
            return diag_set(c->diag, EXIT_GUEST, "waiting for the answer: %s", strerror(errno));
        if (nr == 0 && wait_on(c, ++nr_silences))
            return -1;
    }
}

/* --- one request ---------------------------------------------------------------------------------------- */

/* Everything until the server closes, with a 0 behind it; the caller frees. NULL with diag. */
static char *receive_all(const struct call *c)
{
    struct diag *diag = c->diag;
    size_t used = 0, room = 0;
    char *text = NULL;

    for (;;) {
        if (used + 1 >= room) {
            room = room ? 2 * room : 4096;
            char *more = room <= MAX_ANSWER_BYTES ? realloc(text, room) : NULL;
            if (!more) {
                broken(diag, "it is too long");
                break;
            }
            text = more;
        }
        if (await(c))
            break;
        ssize_t got = recv(c->fd, text + used, room - used - 1, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            diag_set(diag, EXIT_GUEST, "ebb hung up: %s", strerror(errno));
            break;
        }
        used += (size_t)got;
        if (got == 0) {
            text[used] = '\0';
            return text;
        }
    }
    free(text);
    return NULL;
}

/* Status line, then the fault or the content. */
static int read_answer(const char *text, json_t **out, struct diag *diag)
{
    const char *content = strstr(text, "\r\n\r\n");
    json_error_t error;
    int status;

    *out = NULL;
    if (!*text)
        return diag_set(diag, EXIT_GUEST, "ebb has ended, or ends now: it gave no answer");
    if (sscanf(text, "HTTP/1.%*1[01] %3d", &status) != 1 || !content)
        return broken(diag, "no HTTP");
    content += 4;
    json_t *value = *content ? json_loads(content, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (*content && !value)
        return broken(diag, "no JSON");
    if (status >= 200 && status < 300) {
        *out = value;
        return 0;
    }
    const char *fault = json_string_value(json_object_get(value, "fault_message"));
    bool ours = status >= 400 && status < 500 && status != 409;
    if (fault)
        diag_set(diag, ours ? EXIT_USAGE : status == 503 ? EXIT_HOST : EXIT_GUEST, "%s", fault);
    else
        diag_set(diag, EXIT_GUEST, "ebb answers with HTTP status %d", status);
    json_decref(value);
    return -1;
}

static int talk(const struct call *c, const char *method, const char *path, const char *body, json_t **out)
{
    char head[512];
    int nr = snprintf(head, sizeof(head),
                      "%s %s HTTP/1.0\r\nHost: ebb\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                      method, path, strlen(body));

    if (nr >= (int)sizeof(head))
        return diag_set(c->diag, EXIT_USAGE, "the request is too long");
    if (send_all(c->fd, head, c->diag) || send_all(c->fd, body, c->diag))
        return -1;
    char *text = receive_all(c);
    if (!text)
        return -1;
    int error = read_answer(text, out, c->diag);
    free(text);
    return error;
}

int client_request_within(unsigned silence_ms, const char *socket_path, const char *method, const char *path,
                          const json_t *body, json_t **out, struct diag *diag)
{
    char found[SOCKET_PATH_BYTES];

    if (!socket_path) {
        if (socket_find(found, diag))
            return -1;
        socket_path = found;
    }
    char *text = body ? json_dumps(body, JSON_COMPACT) : strdup("");
    if (!text)
        return diag_set(diag, EXIT_GUEST, "out of memory");
    const struct call call = {
        .fd = socket_connect(socket_path, silence_ms, diag),
        .socket_path = socket_path,
        .silence_ms = silence_ms,
        .may_last = strcmp(method, "GET") != 0,
        .diag = diag,
    };
    int error = call.fd < 0 ? -1 : talk(&call, method, path, text, out);
    if (call.fd >= 0)
        close(call.fd);
    free(text);
    return error;
}

int client_request(const char *socket_path, const char *method, const char *path, const json_t *body, json_t **out,
                   struct diag *diag)
{
    return client_request_within(CLIENT_SILENCE_MS, socket_path, method, path, body, out, diag);
}
