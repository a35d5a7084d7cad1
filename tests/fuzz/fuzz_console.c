/* SPDX-License-Identifier: Apache-2.0 */
/* virtio-console with two ports under a hostile driver, while programs of the host come, talk and go. */
#include "tests/fuzz/fuzz.h"

#include "devices/console/console.h"
#include "devices/line.h"
#include "devices/unix_socket.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NR_PORTS 2

static struct fuzz_rig rig;
static char folder[32], path[NR_PORTS][48];

struct host {
    struct console *console;
    int fd[NR_PORTS]; /* -1: not connected */
};

static void remove_folder(void)
{
    rmdir(folder);
}

static void make_folder(void)
{
    if (folder[0])
        return;
    strcpy(folder, "/tmp/ebb-fuzz-XXXXXX");
    if (!mkdtemp(folder))
        fuzz_fail("no folder");
    atexit(remove_folder);
    for (unsigned i = 0; i < NR_PORTS; i++)
        snprintf(path[i], sizeof(path[i]), "%s/%u", folder, i);
}

static void print(void *ctx, const void *bytes, size_t nr)
{
    const uint8_t *at = bytes;

    (void)ctx;
    if (nr > 0 && at[nr - 1] == at[0])
        return; /* has read the first and the last: the sanitizer looks */
}

static void keep_line(void *ctx, const char *line)
{
    (void)ctx;
    if (strlen(line) >= LINE_BYTES)
        fuzz_fail("a line is too long");
}

static void poke(void *ctx, struct fuzz_input *in)
{
    struct host *host = ctx;
    static char bytes[8192];
    uint8_t what = fuzz_u8(in);
    int *fd = &host->fd[what >> 4 & 1];
    size_t nr = (size_t)fuzz_u8(in) * 32;

    switch (what & 3) {
    case 0:
        if (*fd < 0)
            *fd = unix_connect(path[what >> 4 & 1]);
        break;
    case 1:
        if (*fd >= 0)
            close(*fd);
        *fd = -1;
        break;
    case 2:
        if (*fd >= 0 && unix_send(*fd, bytes, nr) > 0 && what & 0x20)
            (void)!unix_recv(*fd, bytes, sizeof(bytes));
        break;
    default:
        if (console_input(host->console, bytes, nr) > nr)
            fuzz_fail("more was taken than there is");
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct host host = {.fd = {-1, -1}};
    char why[200];

    fuzz_prepare(&rig);
    make_folder();
    const struct console_port_config ports[NR_PORTS] = {{"one", path[0]}, {"two", path[1]}};
    const struct console_config config = {
        .on_line = keep_line, .on_bytes = print, .input_fd = -1, .nr_ports = NR_PORTS, .ports = ports};
    if (console_create(&config, &rig.env, &host.console, why, sizeof(why)) != 0)
        fuzz_fail(why);
    fuzz_run(&rig, console_device(host.console), data, bytes, poke, &host);
    console_destroy(host.console);
    for (unsigned i = 0; i < NR_PORTS; i++)
        if (host.fd[i] >= 0)
            close(host.fd[i]);
    return 0;
}
