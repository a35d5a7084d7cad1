/* SPDX-License-Identifier: Apache-2.0 */
/* The program under test, run from outside: build/ebb or what EBB names. Each run has a directory of its own as cwd. */
#ifndef TESTS_FAKE_PROGRAM_H
#define TESTS_FAKE_PROGRAM_H

#include <stdbool.h>
#include <sys/types.h>

#define PROGRAM_MAX_WORDS 32

/* What is done to the process before it becomes ebb; false: it could not be done, and the test is skipped. */
typedef bool program_prepare(void);

struct program {
    char directory[48]; /* made by program_init, removed by program_fini */
    int binary;         /* descriptor of the program */
    program_prepare *prepare;
    bool cannot_prepare; /* out */
    pid_t pid;
    int out, err; /* files without a name that take standard output and error */
    int code;     /* exit code; -signal when it was killed */
    char out_text[32768], err_text[4096];
};

/* Fails the test when there is no program. */
void program_init(struct program *p);
/* Asserts that nothing is left in the directory but what @keep names (NULL: nothing), which is removed. */
void program_fini(struct program *p, const char *keep);

/* Starts ebb with @line, words separated by single blanks; a word may be put in 'single quotes'. On
 * return the process is ebb: signals to it are ebb's. */
void program_start(struct program *p, const char *line);
/* Waits for its end, at most 120 s; then it is killed, and the test fails. Fills code and the texts. */
void program_wait(struct program *p);
/* Both. */
void program_run(struct program *p, const char *line);

/* Path inside the directory; a static buffer is not used: @out has 160 bytes. */
char *program_path(const struct program *p, const char *name, char *out);

/* Lines in @text. */
unsigned program_lines(const char *text);

/* True when tests with /dev/kvm shall run; else a line "SKIP:" is printed once. */
bool program_has_kvm(const char *what);

#endif
