#ifndef TARGET_H
#define TARGET_H
#ifdef __cplusplus
extern "C" {
#endif
long target_add(long a, long b);
long target_eight(long a, long b, long c, long d, long e, long f, long g, long h);
double target_scale(double x, double y);
long target_twice(long a); /* calls target_add once */
long target_quiet(long a);
void target_raise(int signal);
#ifdef __cplusplus
}
#endif
#endif
