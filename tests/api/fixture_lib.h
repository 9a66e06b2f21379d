/* See fixture_lib.c. Functions return whether it went well. */
#ifndef UBP_TESTS_API_FIXTURE_LIB_H
#define UBP_TESTS_API_FIXTURE_LIB_H

int fixture_start(const char* spec);
long fixture_hits(void);
int fixture_stop(void);

#endif
