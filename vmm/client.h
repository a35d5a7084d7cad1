/* SPDX-License-Identifier: Apache-2.0 */
/* client: one HTTP/1.0 request to a running ebb, for `ebb show` and its like. The server is libmicrohttpd. */
#ifndef VMM_CLIENT_H
#define VMM_CLIENT_H

#include "vmm/diag.h"

#include <jansson.h>

/* After so long without an answer it is asked whether that ebb is stopped or hangs. Chosen: nothing else is so slow. */
#define CLIENT_SILENCE_MS 10000u

/*
 * client_request - @method "GET" or "PUT"; @socket_path NULL for the youngest running ebb; @body may be NULL, is only
 * read. Returns 0 and *out, a new reference or NULL for an answer without content; -1 with @diag: what the server says
 * is wrong (4xx of the caller: EXIT_USAGE; 503: EXIT_HOST; other: EXIT_GUEST), no server, or an answer that is not one.
 * A process that is stopped, or answers no other request either, is told (EXIT_GUEST) after one or two times of silence.
 * While it does answer others, a PUT may take as long as it takes (swapoff, dump, ...), and a GET six times of silence.
 */
int client_request(const char *socket_path, const char *method, const char *path, const json_t *body, json_t **out,
                   struct diag *diag);

/* The same, @silence_ms for CLIENT_SILENCE_MS. */
int client_request_within(unsigned silence_ms, const char *socket_path, const char *method, const char *path,
                          const json_t *body, json_t **out, struct diag *diag);

#endif
