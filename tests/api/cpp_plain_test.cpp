// ubp.hpp without exceptions and without run-time type information; with every warning an error.
#include <ubp.hpp>

#include "target.h"

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "compile with -fno-exceptions -fno-rtti"
#endif

int main() {
  const auto session = ubp::Session::start();
  if (!session) return 1;
  long sum = 0;
  auto transaction = ubp::Transaction::begin();
  auto probe =
      ubp::Probe::create("libfx_target:target_add", [&sum](const ubp::Hit& hit) { sum += hit.argument<long>(0); });
  if (!transaction || !probe || transaction->commit() != UBP_OK) return 2;
  for (long i = 1; i <= 4; ++i) target_add(i, 0);
  if (sum != 10 || probe->stats().value().hits != 4) return 3;
  const auto bad = ubp::Probe::create("libfx_target:target_ad");
  if (bad || bad.error().text().find("did you mean") == std::string::npos) return 4;
  return probe->unregister() == UBP_OK && !*probe ? 0 : 5;
}
