/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/client.h"

#include "vmm/socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_ANSWER_BYTES (16u << 20)

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

/* Everything until the server closes, with a 0 behind it; the caller frees. NULL with diag. */
static char *receive_all(int fd, struct diag *diag)
{
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
        ssize_t got = recv(fd, text + used, room - used - 1, 0);
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

static int talk(int fd, const char *method, const char *path, const char *body, json_t **out, struct diag *diag)
{
    char head[512];
    int nr = snprintf(head, sizeof(head),
                      "%s %s HTTP/1.0\r\nHost: ebb\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                      method, path, strlen(body));

    if (nr >= (int)sizeof(head))
        return diag_set(diag, EXIT_USAGE, "the request is too long");
    if (send_all(fd, head, diag) || send_all(fd, body, diag))
        return -1;
    char *text = receive_all(fd, diag);
    if (!text)
        return -1;
    int error = read_answer(text, out, diag);
    free(text);
    return error;
}

int client_request(const char *socket_path, const char *method, const char *path, const json_t *body, json_t **out,
                   struct diag *diag)
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
    int fd = socket_connect(socket_path, diag);
    int error = fd < 0 ? -1 : talk(fd, method, path, text, out, diag);
    if (fd >= 0)
        close(fd);
    free(text);
    return error;
}
