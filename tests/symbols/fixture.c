/* A small library for the symbol tests: stripped, its symbols in a separate debug file (see meson.build). */
int fixture_value = 3;

__attribute__((noinline, used)) static int fixture_private(int x) { return x * fixture_value + UBP_FIXTURE_VARIANT; }

int fixture_public(int x);
int fixture_public(int x) { return fixture_private(x) + 1; }
