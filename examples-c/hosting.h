/* What the tests of odd hosts share: each host is a process of its own, forked before the library is first used. */
#ifndef HOSTING_H
#define HOSTING_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void require(int condition, const char *what) {
  if (condition) return;
  fprintf(stderr, "WRONG: %s\n", what);
  _exit(1);
}
#define REQUIRE(condition) require((condition), #condition)

static void in_a_process_of_its_own(void (*host)(void), const char *name) {
  pid_t child = fork();
  if (child == 0) {
    host();
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  printf("%s %s\n", status == 0 ? "ok   " : "WRONG", name);
  fflush(stdout);
  if (status != 0) exit(1);
}
#define HOST(name) in_a_process_of_its_own(name, #name)

#endif
