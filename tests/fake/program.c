/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/program.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_S 120
#define CANNOT_PREPARE 99 /* exit code of a child that never became ebb */

extern char **environ;

void program_init(struct program *p)
{
    const char *path = getenv("EBB");

    memset(p, 0, sizeof(*p));
    strcpy(p->directory, "/tmp/ebb-program-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(p->directory));
    p->binary = open(path ? path : "build/ebb", O_PATH | O_CLOEXEC);
    ck_assert_msg(p->binary >= 0, "no build/ebb: run `make` first, from the top folder");
    p->out = memfd_create("out", MFD_CLOEXEC);
    p->err = memfd_create("err", MFD_CLOEXEC);
    ck_assert(p->out >= 0 && p->err >= 0);
}

void program_fini(struct program *p, const char *keep)
{
    struct dirent *entry;
    DIR *dir = opendir(p->directory);
    int fd = dirfd(dir);

    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        ck_assert_msg(keep && strcmp(entry->d_name, keep) == 0, "%s was left behind", entry->d_name);
        ck_assert_int_eq(unlinkat(fd, entry->d_name, 0), 0);
    }
    closedir(dir);
    ck_assert_int_eq(rmdir(p->directory), 0);
    close(p->binary);
    close(p->out);
    close(p->err);
}

char *program_path(const struct program *p, const char *name, char *out)
{
    snprintf(out, 160, "%s/%s", p->directory, name);
    return out;
}

/* Cuts @line in place. */
static void cut(char *line, char *words[PROGRAM_MAX_WORDS + 2])
{
    static char name[] = "ebb";
    int nr = 0;

    words[nr++] = name;
    while (*line && nr <= PROGRAM_MAX_WORDS) {
        char end = *line == '\'' ? '\'' : ' ';
        line += end == '\'';
        words[nr++] = line;
        line += strcspn(line, end == '\'' ? "'" : " ");
        if (*line)
            *line++ = '\0';
        line += strspn(line, " ");
    }
    words[nr] = NULL;
}

/* In the child; does not return. */
static void become(struct program *p, const char *line)
{
    char copy[4096], *words[PROGRAM_MAX_WORDS + 2];
    int null = open("/dev/null", O_RDONLY);

    snprintf(copy, sizeof(copy), "%s", line);
    cut(copy, words);
    if (chdir(p->directory) || null < 0 || dup2(null, 0) < 0 || dup2(p->out, 1) < 0 || dup2(p->err, 2) < 0)
        _exit(CANNOT_PREPARE);
    if (p->prepare && !p->prepare())
        _exit(CANNOT_PREPARE);
    fexecve(p->binary, words, environ);
    _exit(CANNOT_PREPARE);
}

/* The end of @gate that was made in parent and child closes in the child when it becomes ebb, or ends. */
static void wait_for_exec(const int gate[2])
{
    char byte;

    close(gate[1]);
    while (read(gate[0], &byte, 1) < 0 && errno == EINTR)
        ;
    close(gate[0]);
}

void program_start(struct program *p, const char *line)
{
    int gate[2];

    ck_assert_int_eq(pipe2(gate, O_CLOEXEC), 0);
    ck_assert_int_eq(ftruncate(p->out, 0), 0);
    ck_assert_int_eq(ftruncate(p->err, 0), 0);
    lseek(p->out, 0, SEEK_SET);
    lseek(p->err, 0, SEEK_SET);
    fflush(stdout);
    p->pid = fork();
    ck_assert_int_ge(p->pid, 0);
    if (p->pid == 0)
        become(p, line);
    wait_for_exec(gate);
}

static void read_text(int fd, char *out, size_t out_bytes)
{
    ssize_t nr = pread(fd, out, out_bytes - 1, 0);

    out[nr > 0 ? nr : 0] = '\0';
}

void program_wait(struct program *p)
{
    const struct timespec step = {.tv_nsec = 5000000};
    int status = 0;
    pid_t ended = 0;

    for (int i = 0; i < LIMIT_S * 200 && ended == 0; i++) {
        ended = waitpid(p->pid, &status, WNOHANG);
        if (ended == 0)
            nanosleep(&step, NULL);
    }
    if (ended == 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, &status, 0);
    }
    read_text(p->out, p->out_text, sizeof(p->out_text));
    read_text(p->err, p->err_text, sizeof(p->err_text));
    ck_assert_msg(ended == p->pid, "ebb did not end within %d s\n%s%s", LIMIT_S, p->out_text, p->err_text);
    p->code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    p->cannot_prepare = p->code == CANNOT_PREPARE;
}

void program_run(struct program *p, const char *line)
{
    program_start(p, line);
    program_wait(p);
}

unsigned program_lines(const char *text)
{
    unsigned nr = 0;

    for (; *text; text++)
        nr += *text == '\n';
    return nr;
}

bool program_has_kvm(const char *what)
{
    const char *no = getenv("EBB_NO_KVM");

    if (!no || strcmp(no, "1") != 0)
        return true;
    printf("SKIP: %s: EBB_NO_KVM=1\n", what);
    fflush(stdout);
    return false;
}
