/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/api.h"

#include "vmm/suggest.h"

#include "vmm/thread.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_CONNECTIONS 16u
#define MAX_BODY_BYTES 4096u
#define CONNECTION_BYTES 32768u /* all that one connection may make the library hold */
#define TIMEOUT_S 10u
#define THREAD_STACK_BYTES (1u << 20)

#define HTTP_TOO_LONG 413u /* RFC 9110, 15.5.14; the library renamed its own word for it */

#define PREFIX "/memory/"

/* It brings TLS and seven libraries for that along, 2.5 MiB that no VM needs: it is loaded when somebody calls. */
#define MHD_CALLS(X)                                                                                                   \
    X(start_daemon)                                                                                                    \
    X(stop_daemon)                                                                                                     \
    X(create_response_from_buffer)                                                                                     \
    X(add_response_header)                                                                                             \
    X(queue_response)                                                                                                  \
    X(destroy_response)                                                                                                \
    X(lookup_connection_value)

struct api {
    struct {
#define X(name) __typeof__(&MHD_##name) name;
        MHD_CALLS(X)
#undef X
    } mhd;
    struct api_config config;
    int stop_fd; /* eventfd */
    pthread_t doorkeeper;
    struct MHD_Daemon *daemon; /* the doorkeeper's, until it is joined */
};

/* One request while its body comes in. */
struct exchange {
    size_t body_bytes;
    bool too_long;
    char body[MAX_BODY_BYTES];
};

/* Sends @content, which is taken over; NULL for none. */
static enum MHD_Result answer(struct api *api, struct MHD_Connection *connection, unsigned status, json_t *content)
{
    char *text = content ? json_dumps(content, JSON_INDENT(2)) : NULL;
    struct MHD_Response *response;

    json_decref(content);
    response = api->mhd.create_response_from_buffer(text ? strlen(text) : 0, text, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(text);
        return MHD_NO;
    }
    if (text)
        api->mhd.add_response_header(response, "Content-Type", "application/json");
    enum MHD_Result result = api->mhd.queue_response(connection, status, response);
    api->mhd.destroy_response(response);
    return result;
}

static enum MHD_Result answer_fault(struct api *api, struct MHD_Connection *connection, unsigned status,
                                    const char *fault)
{
    return answer(api, connection, status, json_pack("{s:s}", "fault_message", fault));
}

/* client.c makes the exit code of it again. */
static enum MHD_Result answer_diag(struct api *api, struct MHD_Connection *connection, const struct diag *diag)
{
    unsigned status = diag->code == EXIT_USAGE  ? MHD_HTTP_BAD_REQUEST
                      : diag->code == EXIT_HOST ? MHD_HTTP_SERVICE_UNAVAILABLE
                                                : MHD_HTTP_CONFLICT;

    return answer_fault(api, connection, status, diag->text);
}

static const struct control_action *find_action(const char *name)
{
    const struct control_action *action = control_actions;

    while (action->name && strcmp(action->name, name) != 0)
        action++;
    return action->name ? action : NULL;
}

static const struct view_name *find_view(const char *name)
{
    const struct view_name *view = source_views;

    while (view->name && strcmp(view->name, name) != 0)
        view++;
    return view->name ? view : NULL;
}

/* 0, or -1 with diag: it is not there before @step. */
static int await_phase(struct api *api, enum phase_step step, struct diag *diag)
{
    struct phase *phase = api->config.control->phase;
    char text[PHASE_TEXT];

    if (!phase || phase_read(phase, text) >= step)
        return 0;
    return diag_set(diag, EXIT_GUEST, "that ebb is not ready yet: it is %s; ask again in a moment", text);
}

static json_t *make_index(void)
{
    json_t *get = json_object(), *put = json_object();

    for (const struct view_name *view = source_views; view->name; view++) {
        char path[64];
        snprintf(path, sizeof(path), PREFIX "%s", view->name);
        json_object_set_new(get, path, json_string(view->what));
    }
    for (const struct control_action *action = control_actions; action->name; action++) {
        char path[64];
        snprintf(path, sizeof(path), PREFIX "%s", action->name);
        json_object_set_new(put, path, json_string(action->body));
    }
    return json_pack("{s:o, s:o}", "GET", get, "PUT", put);
}

static enum MHD_Result do_get(struct api *api, struct MHD_Connection *connection, const struct view_name *what)
{
    struct diag diag = {0};

    if (await_phase(api, what->of_machine ? PHASE_RUN : PHASE_MAKE, &diag))
        return answer_diag(api, connection, &diag);
    json_t *view = source_view(api->config.control->source, what->name,
                               api->mhd.lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "vm"),
                               api->mhd.lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "gpa"), &diag);

    if (view)
        return answer(api, connection, MHD_HTTP_OK, view);
    struct diag not_yet = {0};
    bool early = diag.code == EXIT_USAGE && await_phase(api, PHASE_RUN, &not_yet); /* its VM is not made yet */
    return answer_diag(api, connection, early ? &not_yet : &diag);
}

static enum MHD_Result do_put(struct api *api, struct MHD_Connection *connection, const struct control_action *action,
                              const struct exchange *exchange)
{
    struct diag diag = {0};
    json_error_t error;
    json_t *out = NULL;
    json_t *body = json_loadb(exchange->body, exchange->body_bytes, JSON_REJECT_DUPLICATES, &error);

    if (!json_is_object(body)) {
        json_decref(body);
        diag_set(&diag, EXIT_USAGE, "%s needs a JSON object: %s", action->name, action->body);
        return answer_diag(api, connection, &diag);
    }
    int failed = await_phase(api, PHASE_RUN, &diag) || action->act(api->config.control, body, &out, &diag);
    json_decref(body);
    if (failed)
        return answer_diag(api, connection, &diag);
    return answer(api, connection, out ? MHD_HTTP_OK : MHD_HTTP_NO_CONTENT, out);
}

/* The request is complete: one answer. */
static enum MHD_Result respond(struct api *api, struct MHD_Connection *connection, const char *url, const char *method,
                               const struct exchange *exchange)
{
    bool get = strcmp(method, "GET") == 0, put = strcmp(method, "PUT") == 0;
    const char *name = strncmp(url, PREFIX, strlen(PREFIX)) == 0 ? url + strlen(PREFIX) : "";
    const struct control_action *action = find_action(name);
    const struct view_name *view = find_view(name);
    const char *names[SOURCE_MAX_VIEWS];
    char fault[160], near[SUGGEST_TEXT];

    if (exchange->too_long)
        return answer_fault(api, connection, HTTP_TOO_LONG, "the request is longer than 4096 bytes");
    if (get && strcmp(url, "/") == 0)
        return answer(api, connection, MHD_HTTP_OK, make_index());
    if (get && view)
        return do_get(api, connection, view);
    if (put && action)
        return do_put(api, connection, action, exchange);
    if (action || view)
        return answer_fault(api, connection, MHD_HTTP_METHOD_NOT_ALLOWED,
                            action ? "this path takes PUT" : "this path takes GET");
    source_view_names(names);
    snprintf(fault, sizeof(fault), "there is no %.60s; GET / lists what there is%s", url,
             suggest_text(near, name, names));
    return answer_fault(api, connection, MHD_HTTP_NOT_FOUND, fault);
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *data_bytes, void **state)
{
    struct exchange *exchange = *state;

    (void)version;
    if (!exchange) {
        *state = calloc(1, sizeof(*exchange));
        return *state ? MHD_YES : MHD_NO;
    }
    if (*data_bytes) {
        exchange->too_long |= *data_bytes > MAX_BODY_BYTES - exchange->body_bytes;
        if (!exchange->too_long) {
            memcpy(exchange->body + exchange->body_bytes, data, *data_bytes);
            exchange->body_bytes += *data_bytes;
        }
        *data_bytes = 0;
        return MHD_YES;
    }
    return respond(ctx, connection, url, method, exchange);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode why)
{
    (void)ctx;
    (void)connection;
    (void)why;
    free(*state);
    *state = NULL;
}

static int load_mhd(struct api *api, struct diag *diag)
{
    void *library = dlopen("libmicrohttpd.so.12", RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return diag_set(diag, EXIT_HOST,
                        "the API cannot start: libmicrohttpd is missing here (%s); Debian has it in "
                        "libmicrohttpd12",
                        dlerror());
#define X(name)                                                                                                        \
    if (!(*(void **)(void *)&api->mhd.name = dlsym(library, "MHD_" #name)))                                            \
        return diag_set(diag, EXIT_HOST, "the API cannot start: this libmicrohttpd has no MHD_" #name);
    MHD_CALLS(X)
#undef X
    return 0;
}

static bool is_same_file(int a, int b)
{
    struct stat of_a, of_b;

    return fstat(a, &of_a) == 0 && fstat(b, &of_b) == 0 && of_a.st_dev == of_b.st_dev && of_a.st_ino == of_b.st_ino;
}

/*
 * 0, or -1 with diag. The library gets a copy of the socket, for nothing says who closes it after an error: 0.9.75 does
 * when there is no thread, and does not when there is no memory or no eventfd. A number that it has closed may be
 * another thread's by now. Nobody else copies this socket: where the number still means it, it is this copy.
 */
static int start_daemon(struct api *api, struct diag *diag)
{
    if (load_mhd(api, diag))
        return -1;
    int fd = fcntl(api->config.listen_fd, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0)
        api->daemon = api->mhd.start_daemon(
            MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL,
            on_request, api, MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
            MHD_OPTION_CONNECTION_LIMIT, MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
            MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S, MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK_BYTES,
            MHD_OPTION_END);
    if (api->daemon)
        return 0;
    if (fd >= 0 && is_same_file(fd, api->config.listen_fd))
        close(fd);
    return diag_set(diag, EXIT_HOST,
                    "the API cannot start: no memory, descriptors or threads left; or run with --api none");
}

/* Until the first request, which waits until the library takes it, or the end. */
static void *doorkeeper_run(void *arg)
{
    struct api *api = arg;
    struct pollfd polls[] = {{.fd = api->config.listen_fd, .events = POLLIN}, {.fd = api->stop_fd, .events = POLLIN}};
    struct diag diag = {0};
    int nr;

    do
        nr = poll(polls, ARRAY_LEN(polls), -1);
    while (nr < 0 && errno == EINTR);
    if (nr > 0 && polls[0].revents && !polls[1].revents)
        (void)start_daemon(api, &diag);
    close(api->config.listen_fd); /* the library has a copy; without one, who waits there is refused */
    if (diag.text[0] && api->config.on_error)
        api->config.on_error(api->config.ctx, diag.text);
    return NULL;
}

int api_start(const struct api_config *config, struct api **out, struct diag *diag)
{
    struct api *api = calloc(1, sizeof(*api));

    if (api) {
        api->config = *config;
        api->stop_fd = eventfd(0, EFD_CLOEXEC);
        if (api->stop_fd >= 0 && thread_start(&api->doorkeeper, "api", THREAD_ANY_CPU, doorkeeper_run, api) == 0) {
            *out = api;
            return 0;
        }
        if (api->stop_fd >= 0)
            close(api->stop_fd);
    }
    free(api);
    close(config->listen_fd);
    return diag_set(diag, EXIT_HOST,
                    "the API cannot start: no memory, descriptors or threads left; or run with --api none");
}

void api_stop(struct api *api)
{
    (void)eventfd_write(api->stop_fd, 1); /* cannot fail: it is 0 */
    pthread_join(api->doorkeeper, NULL);
    if (api->daemon)
        api->mhd.stop_daemon(api->daemon);
    close(api->stop_fd);
    free(api);
}
