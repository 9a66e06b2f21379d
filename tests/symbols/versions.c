/* A library with versions of symbols (see versions.map): twice in two versions with a body each, and once in two of one
 * body. */
int twice_1(int x);
int twice_1(int x) { return x + x + 1; }
int twice_2(int x);
int twice_2(int x) { return x + x; }
__asm__(".symver twice_1, twice@UBP_1\n.symver twice_2, twice@@UBP_2");

int once_both(int x);
int once_both(int x) { return x; }
__asm__(".symver once_both, once@UBP_1\n.symver once_both, once@@UBP_2");

int plain(int x);
int plain(int x) { return x - 1; }
