/*
 * The same operators and the same kills as in test_killed.c, and each VMM is in a jail: besides what it left there, no
 * lease of a user and no mount is left that the next start does not find.
 */
#define JAILED
#include "test_killed.c"
