/*
 * Standard output and standard error of a program for people, sanitized (base/text.h).
 *
 * Why:       what programs print holds texts from outside: identities of a report, keys of someone's flags,
 *            errors of servers. None of them may send commands to the terminal, whoever prints it; so it is
 *            done once, below printf. Line ends and tabs stay.
 * Threads:   as stdio; to be called first in main.
 */
#ifndef BASE_PLAIN_OUTPUT_H
#define BASE_PLAIN_OUTPUT_H

/* When memory is out, the streams stay as they are. What is meant for the terminal itself goes to its
 * descriptor, after fflush. */
void plain_output_begin(void);

#endif
