/*
 * The same operators and the same kills as in test_killed.c, and each VMM is in a jail and in a cgroup of its own:
 * besides what it left there, no lease of a user, no mount and no cgroup is left that the next start does not find.
 */
#define JAILED
#include "test_killed.c"
