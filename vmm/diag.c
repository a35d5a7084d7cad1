/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/diag.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int diag_set(struct diag *diag, enum exit_code code, const char *format, ...)
{
    int saved = errno;

    if (!diag->text[0]) {
        va_list args;
        va_start(args, format);
        vsnprintf(diag->text, sizeof(diag->text), format, args);
        va_end(args);
        /* One line for the user, whatever a path or a guest put into it. */
        for (char *at = diag->text; *at; at++)
            if ((unsigned char)*at < ' ' || *at == 0x7f)
                *at = '?';
        diag->code = code;
    }
    errno = saved;
    return -1;
}

static const char *mend(int err)
{
    switch (err) {
    case EMFILE:
        return "; raise `ulimit -n`, or take fewer --vms";
    case ENFILE:
        return "; raise `sysctl fs.file-max`, or take fewer --vms";
    case EAGAIN: /* of threads */
        return "; raise `ulimit -u`, or take fewer --vms or --cpus";
    case ENOMEM:
        return "; take fewer --vms or less --memory, or raise `ulimit -v`";
    default:
        return "";
    }
}

int diag_host(struct diag *diag, int err, const char *format, ...)
{
    char what[sizeof(diag->text) / 2];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return diag_set(diag, EXIT_HOST, "%s: %s%s", what, strerror(err), mend(err));
}
