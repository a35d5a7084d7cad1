/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/api.h"

#include "vmm/suggest.h"

#include <dlfcn.h>
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
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
    struct MHD_Daemon *daemon;
    const struct control *control;
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

static bool is_view(const char *name)
{
    for (const struct view_name *view = source_views; view->name; view++)
        if (strcmp(view->name, name) == 0)
            return true;
    return false;
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

static enum MHD_Result do_get(struct api *api, struct MHD_Connection *connection, const char *name)
{
    struct diag diag = {0};
    json_t *view = source_view(api->control->source, name,
                               api->mhd.lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "vm"),
                               api->mhd.lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "gpa"), &diag);

    if (!view)
        return answer_diag(api, connection, &diag);
    return answer(api, connection, MHD_HTTP_OK, view);
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
    int failed = action->act(api->control, body, &out, &diag);
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
    const char *names[SOURCE_MAX_VIEWS];
    char fault[160], near[SUGGEST_TEXT];

    if (exchange->too_long)
        return answer_fault(api, connection, HTTP_TOO_LONG, "the request is longer than 4096 bytes");
    if (get && strcmp(url, "/") == 0)
        return answer(api, connection, MHD_HTTP_OK, make_index());
    if (get && is_view(name))
        return do_get(api, connection, name);
    if (put && action)
        return do_put(api, connection, action, exchange);
    if (action || is_view(name))
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

int api_start(int listen_fd, const struct control *control, struct api **out, struct diag *diag)
{
    struct api *api = calloc(1, sizeof(*api));

    if (api && load_mhd(api, diag) == 0) {
        api->control = control;
        api->daemon = api->mhd.start_daemon(
            MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL | MHD_USE_ITC, 0, NULL, NULL,
            on_request, api, MHD_OPTION_LISTEN_SOCKET, listen_fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
            MHD_OPTION_CONNECTION_LIMIT, MAX_CONNECTIONS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
            MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_S, MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK_BYTES,
            MHD_OPTION_END);
    }
    if (!api || !api->daemon) {
        free(api);
        close(listen_fd);
        return diag_set(diag, EXIT_HOST, "the API cannot start: no memory or no threads left; or run with --api none");
    }
    *out = api;
    return 0;
}

void api_stop(struct api *api)
{
    api->mhd.stop_daemon(api->daemon);
    free(api);
}
