// Where a thread stands whose RIP is in a detour: every instruction of every shape, and what a handler is shown there.
// See stepped_detour.h.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/jump/stepped_detour.h"

using namespace ubp::runtime;

namespace {

constexpr Scenario kScenarios[] = {
    {.name = "plain"},
    {.name = "left to the breakpoint tier", .counts_alone = false},
    {.name = "no ring", .has_ring = false},
    {.name = "a full ring", .is_full = true},
    {.name = "a consumer that has gone", .consumers = 0},
    {.name = "one consumer, backwards", .consumers = 1, .changes_errno = true, .goes_backwards = true},
    {.name = "errno, MXCSR, not to be cancelled", .changes_errno = true, .is_disabled = true, .has_own_mxcsr = true},
    {.name = "a signal is put off", .defers = true},
    {.name = "a signal is put off, backwards", .changes_errno = true, .defers = true, .goes_backwards = true},
    {.name = "the call is overridden", .changes_errno = true, .overrides = true},
    {.name = "the call is overridden, a signal is put off", .defers = true, .overrides = true},
};

std::vector<Kind> kinds() {
  std::vector<Kind> all{{.name = "counts"}, {.name = "counts in one instruction", .by_segment = true}};
  for (const bool is_inside : {false, true}) {
    Kind records{.name = "records", .calls = true, .is_inside = is_inside};
    records.needs.block = ActionKind::kRecord;
    records.needs.counter = 20;
    all.push_back(records);
    for (int what = 0; what < 3; ++what) {                // no registers, reads, modifies
      for (int floating = 0; floating < 4; ++floating) {  // none, SSE, all by XSAVE, all by moves
        Kind kind{.name = "consumers", .calls = true, .is_inside = is_inside, .has_moves = floating == 3};
        kind.needs.reads = what >= 1;
        kind.needs.modifies = what == 2;
        kind.needs.xmm = floating >= 1;
        kind.needs.all_fp = floating >= 2;
        kind.name += std::string(is_inside ? " inside" : "") +
                     (what == 0   ? ""
                      : what == 1 ? ", read"
                                  : ", modify") +
                     (floating == 0   ? ""
                      : floating == 1 ? ", SSE"
                      : floating == 2 ? ", XSAVE"
                                      : ", moves");
        all.push_back(kind);
        if (is_inside) continue;
        kind.needs.overrides = true;
        kind.name += ", override";
        all.push_back(kind);
      }
    }
  }
  return all;
}

void run_all(SteppedDetour& detour) {
  for (const Scenario& scenario : kScenarios) detour.run(scenario);
}

}  // namespace

TEST_CASE("detour stages: at every instruction of every shape a handler is shown what was there before the hit") {
  for (const Kind& kind : kinds()) {
    CAPTURE(kind.name);
    SteppedDetour detour(kind);
    run_all(detour);
    CHECK_MESSAGE(detour.wrong() == 0, detour.first_wrong());
    const std::set<std::uint64_t> boundaries = detour.boundaries();
    CHECK(boundaries.size() > 8);
    for (const std::uint64_t offset : boundaries) {
      CHECK_MESSAGE(detour.visited().contains(offset), "never stopped at " << static_cast<long>(offset));
    }
    CHECK(detour.visited().size() == boundaries.size());
  }
}

// A stage that is left out is one whose beginning nobody has noted. (One of a single instruction may say no more than
// the one before: a register that has just been spilled still has its value.)
TEST_CASE("control: a shape without any one of its stages is found out") {
  for (const Kind& kind : kinds()) {
    SteppedDetour detour(kind);
    const SteppedDetour::Blocks whole = detour.blocks();
    for (std::size_t block = 0; block < 3; ++block) {
      SteppedDetour::Blocks spoilt = whole;
      for (std::uint32_t stage = 0; stage < spoilt.all()[block]->count; ++stage) {
        spoilt = whole;
        detour.use(spoilt);
        if (detour.is_of_one_instruction(block, stage)) continue;
        DetourBlock& without = *spoilt.all()[block];
        std::copy(without.stages + stage + 1, without.stages + without.count, without.stages + stage);
        --without.count;
        detour.forget();
        run_all(detour);
        CHECK_MESSAGE(detour.wrong() != 0, kind.name << ", block " << block << ", stage " << stage);
      }
    }
  }
}
