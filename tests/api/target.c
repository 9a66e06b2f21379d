/* libfx_target.so: what the tests of the C interface probe. */
#include "target.h"

#include <signal.h>

long target_add(long a, long b) { return a + b; }
long target_eight(long a, long b, long c, long d, long e, long f, long g, long h) {
  return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f + 7 * g + 8 * h;
}
double target_scale(double x, double y) { return x * y + 0.5; }
long target_twice(long a) { return target_add(a, a); }
long target_quiet(long a) { return a ^ 0x55; }
void target_raise(int signal) { raise(signal); }
