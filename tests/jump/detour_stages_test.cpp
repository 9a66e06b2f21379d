// Where a thread stands whose RIP is in a detour: every instruction of every shape, and what a handler is shown there.
// See stepped_detour.h.
#include <doctest/doctest.h>

#include <algorithm>
#include <deque>

#include "runtime/table/shortcut.h"
#include "tests/jump/stepped_detour.h"

using namespace ubp::runtime;

namespace {

constexpr Scenario kScenarios[] = {
    {.name = "plain"},
    {.name = "left to the breakpoint tier", .counts_alone = false},
    {.name = "no ring", .has_ring = false},
    {.name = "a full ring", .is_full = true},
    // Of programs, their gate is closed: no shortcut does what they do.
    {.name = "a consumer that has gone", .consumers = 0, .is_closed = true},
    {.name = "one consumer, backwards",
     .consumers = 1,
     .changes_errno = true,
     .goes_backwards = true,
     .is_closed = true},
    {.name = "errno, MXCSR, not to be cancelled",
     .changes_errno = true,
     .is_disabled = true,
     .has_own_mxcsr = true,
     .is_closed = true},
    {.name = "a signal is put off", .defers = true, .is_closed = true},
    {.name = "a signal is put off, backwards",
     .changes_errno = true,
     .defers = true,
     .goes_backwards = true,
     .is_closed = true},
    {.name = "a filter says no", .passes = false},
    {.name = "a filter says no, other flags", .passes = false, .is_zero = true},
    {.name = "a filter says yes, other flags", .is_zero = true},
    {.name = "no cells of its own", .has_cells = false},
    {.name = "nor those, other flags", .is_zero = true, .has_cells = false},
    {.name = "the call is overridden", .changes_errno = true, .overrides = true, .is_closed = true},
    {.name = "the call is overridden, a signal is put off", .defers = true, .overrides = true, .is_closed = true},
};

// Filters that say no where r11 is 0. One takes all that there is: the registers that it spills, numbers of 64 bits.
const Shortcut& filter(bool takes_all) {
  using Step = ShortcutStep;
  constexpr std::uint8_t kEqual = 4, kNotEqual = 5, kNegative = 8;
  constexpr std::uint64_t kRax = 0, kRcx = 1, kRdx = 2, kRbp = 5, kR11 = 11, kLong = 0x123456789abcdef0;
  static const Shortcut simple{{{.kind = Step::kBranch, .subject = kR11, .condition = kEqual, .label = Shortcut::kNo}}};
  static const Shortcut all{
      {{.kind = Step::kBranch, .is_register = true, .subject = kRcx, .condition = kEqual, .operand = kRax},
       {.kind = Step::kBranch, .subject = kRdx, .condition = kEqual, .operand = kLong},
       {.kind = Step::kBranch, .subject = kRbp, .condition = kEqual, .operand = 7},
       {.kind = Step::kLoad, .is_register = true, .operand = kR11},
       {.kind = Step::kBranch, .condition = kNegative, .label = 1},
       {.kind = Step::kAdd, .is_register = true, .operand = kRcx},
       {.kind = Step::kSubtract, .is_register = true, .operand = kRcx},
       {.kind = Step::kXor, .operand = kLong},
       {.kind = Step::kXor, .operand = kLong},
       {.kind = Step::kShiftLeft, .is_register = true, .operand = kRax},
       {.kind = Step::kShiftRight, .is_register = true, .operand = kRbp},
       {.kind = Step::kShiftSigned, .operand = 2},
       {.kind = Step::kOr, .is_register = true, .operand = kR11},
       {.kind = Step::kMultiply, .operand = 3},
       {.kind = Step::kMultiply, .is_register = true, .operand = kRdx},
       {.kind = Step::kExtend, .operand = 16},
       {.kind = Step::kOr, .is_register = true, .operand = kR11},
       {.kind = Step::kBranch, .condition = kNotEqual, .label = 1},
       {.kind = Step::kGo, .label = Shortcut::kNo},
       {.kind = Step::kLabel, .label = 1}},
      2};
  return takes_all ? all : simple;
}

// What is performed without a call.
Shortcut acting(Shortcut::Act act, bool is_asked) {
  Shortcut shortcut = is_asked ? filter(true) : Shortcut{};
  shortcut.act = act;
  if (act != Shortcut::kAddOne)
    shortcut.value = {{.kind = ShortcutStep::kLoad, .operand = 5},
                      {.kind = ShortcutStep::kOr, .is_register = true, .operand = 11}};
  shortcut.calls_negative = is_asked;
  shortcut.cells = SteppedDetour::g_own_cells;
  shortcut.gate = &SteppedDetour::g_gate;
  return shortcut;
}

std::vector<Kind> kinds() {
  std::vector<Kind> all{{.name = "counts"}, {.name = "counts in one instruction", .by_segment = true}};
  for (const bool is_inside : {false, true}) {
    Kind records{.name = "records", .calls = true, .is_inside = is_inside};
    records.needs.block = ActionKind::kRecord;
    records.needs.counter = 20;
    all.push_back(records);
    for (const bool takes_all : {false, true}) {
      Kind filters{.name = takes_all ? "filters by much" : "filters", .calls = true, .is_inside = is_inside};
      filters.needs.block = ActionKind::kShortcut;
      filters.needs.shortcut = &filter(takes_all);
      all.push_back(filters);
    }
    for (const Shortcut::Act act : {Shortcut::kAddOne, Shortcut::kAddValue, Shortcut::kAddToBucket}) {
      for (const bool is_asked : {false, true}) {
        static std::deque<Shortcut> shortcuts;
        Kind acts{.name = "acts " + std::to_string(act) + (is_asked ? " if asked" : ""),
                  .calls = true,
                  .is_inside = is_inside};
        acts.needs.block = ActionKind::kShortcut;
        acts.needs.shortcut = &shortcuts.emplace_back(acting(act, is_asked));
        all.push_back(acts);
      }
    }
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
        for (std::size_t i = 0; i < std::size(kScenarios) && detour.wrong() == 0; ++i) detour.run(kScenarios[i]);
        CHECK_MESSAGE(detour.wrong() != 0, kind.name << ", block " << block << ", stage " << stage);
      }
    }
  }
}
