// The machine code of a probe's block. Internal to runtime/program: compiler.h makes programs of it.
//
// One function with a consumer's signature. A number's value is in rax; that of a string or a tuple lies in the frame
// (or among the constants), and rax has its address. rbx: the Run, in the frame too. Everything that is more than a few
// instructions is a call of helpers.h. Only general registers are touched.
//
// Context: load time. Throws Xbyak::Error, a std::exception, where the code does not fit into its buffer.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string_view>
#include <vector>

#include "runtime/analysis/analysis.h"
#include "runtime/analysis/builtins.h"
#include "runtime/base/xbyak.h"
#include "runtime/helpers/memory.h"
#include "runtime/language/tree.h"

namespace ubp::program {

// Where a program's parts are in this process.
struct Placed {
  Machine* machine;
  const MapView* maps;                            // by Analysis::maps
  std::deque<std::vector<std::uint64_t>>* texts;  // string literals: those of the code are added
  bool has_intervals;                             // that hits look after
};

class Assembler : public Xbyak::CodeGenerator {
 public:
  Assembler(const Analysis& analysis, const Placed& placed, std::uint8_t* buffer, std::size_t bytes)
      : Xbyak::CodeGenerator(bytes, buffer), analysis_(analysis), placed_(placed) {}

  // Assembles the function. Returns the bytes of stack that it takes.
  // number: the probe's, in the text.
  std::size_t assemble(const language::Probe& probe, std::uint32_t number);

 private:
  using Node = language::Node;
  using Type = program::Type;  // and not the base's

  void begin(const language::Probe& probe);
  void place_variables(const Node& node);

  void statement(const Node& node);
  void block(const Node& node);
  void if_statement(const Node& node);
  void while_loop(const Node& node);
  void for_range(const Node& node);
  void for_map(const Node& node);
  void spend_turn(const Node& loop);
  struct Loop;
  void loop_body(const Node& loop, Loop& labels);
  void unroll(const Node& node);
  void assign(const Node& node);
  void assign_map(const Node& node);

  void value(const Node& node);
  void binary(const Node& node);
  void both(const Node& left, const Node& right);  // rax and rcx
  bool load_simple(const Xbyak::Reg64& to, const Node& node);
  void combine(const Node& node);  // rax and rcx by the operation of a kBinary or a compound kAssign
  void compare_texts(const Node& node);
  void logical(const Node& node);
  void unary(const Node& node);
  void increment(const Node& node);
  void conditional(const Node& node);
  void tuple(const Node& node);
  void cast(const Node& node);
  void block_value(const Node& node);
  void if_value(const Node& node);

  // assemble_memory.cpp: where something is: its address in rax. True: in the program's memory, else in the frame.
  bool locate(const Node& node);
  bool locate_member(const Node& node);
  bool locate_element(const Node& node);
  // What is at rax: into rax, or into the frame, whose address rax is then.
  void load(const Type& type, bool is_remote, std::uint32_t site);
  void load_number(const Type& type, bool is_remote, std::uint32_t site);
  void extend(const Type& type);
  void member(const Node& node);
  void all_arguments(const Node& node);
  void argument(const Node& node);
  void argument_into(std::uint32_t number, const Type& type, int displacement, std::uint32_t site);
  void cast_to_array(const Node& node);
  void scale(const Xbyak::Reg64& number, const Type& pointer);  // to what a pointer counts in
  std::uint32_t step_of(const Type& type) const;                // what ++ adds
  void builtin(std::string_view name);
  void read_register(int number);
  void text_constant(std::string_view text, std::uint32_t words);
  void jump_unless(const Node& condition, const Xbyak::Label& target);

  void call(const Node& node);
  void call_of_map(const Node& node, Function function);
  void find_key(const Node& node, int its_key);
  void aggregate(const Node& target, const Node& from);
  void add_to_series(const Node& target, const Node& call, int its_key);
  void print_event(const Node& node, std::size_t first);
  void print_map(const Node& node);
  void read_text(const Node& node, int result);
  void read_buffer(const Node& node);
  // An event with these values, which lie in the frame.
  void write_event(std::uint32_t index, int values, std::uint32_t words);

  // assemble_stacks.cpp
  void take_stack(std::uint32_t frames);
  void stack_length(const Node& node);
  void symbol(const Node& node);
  void symbol_address(const Node& node);

  // assemble_texts.cpp
  void call_of_text(const Node& node, Function function);
  // The address of a text, which a pointer is read for, in rax; returns how many bytes it has at most.
  std::uint32_t text(const Node& node, const Node& call);
  // The same of anything wide, its address in the frame.
  std::uint32_t bytes_of(const Node& node, const Node& call, int address);
  void compare(const Node& node,
               std::uint64_t (*function)(const char*, std::uint64_t, const char*, std::uint64_t, std::uint64_t));
  void find(const Node& node);
  void join_texts(const Node& node);
  void choose(const Node& node, bool is_error);
  void swap_bytes(const Node& node);
  void inet(const Node& node);
  void hardware_address(const Node& node);
  void check(const Node& node);
  void map_value(const Node& node);

  // A map's helper with its first three arguments, the key from these nodes.
  int key(const Map& map, const std::vector<const Node*>& keys);
  int key_of(const Node& node);  // of a kMap
  template <typename Result, typename... Arguments>
  void call_map(Result (*function)(Run*, const MapView*, Arguments...), std::uint32_t map, int key);
  const Map& map_of(const Node& node) const { return analysis_.maps[analysis_.of(node).index]; }

  template <typename Result, typename... Arguments>
  void invoke(Result (*function)(Arguments...)) {
    mov(rax, reinterpret_cast<std::uint64_t>(function));
    Xbyak::CodeGenerator::call(rax);
  }

  std::uint32_t most_text() const { return static_cast<std::uint32_t>(analysis_.config.max_strlen); }

  // Room in the frame, until the Temporaries that it was taken in end; returns where from rbp.
  int room(std::uint32_t words);
  class Temporaries;
  Xbyak::Address at(int displacement) const { return qword[rbp + displacement]; }
  Xbyak::Address in_run(std::size_t offset) const { return qword[rbx + offset]; }
  static std::uint32_t element_offset(const Type& tuple, std::uint64_t index);
  // The node's value there, as another type that holds it.
  void value_into(const Type& to, const Node& node, int displacement);
  // Stores rax, of one type, as another that holds it.
  void store(const Type& to, const Type& from, int displacement);

  const Analysis& analysis_;
  const Placed& placed_;
  const language::Probe* probe_ = nullptr;
  std::uint32_t probe_number_ = 0;
  std::map<std::uint32_t, int> variables_;
  std::uint32_t used_words_ = 0, most_words_ = 0;
  Xbyak::Label end_, filtered_;
  struct Loop {
    Xbyak::Label again, over;
  };
  std::vector<Loop*> loops_;
};

}  // namespace ubp::program
