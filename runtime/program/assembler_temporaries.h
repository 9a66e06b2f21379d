// What the assembler's parts share. Internal to runtime/program.
#pragma once

#include "runtime/helpers/helpers.h"
#include "runtime/program/assembler.h"

namespace ubp::program {

// Ends the use of the frame's room that was taken since.
class Assembler::Temporaries {
 public:
  explicit Temporaries(Assembler& assembler) : assembler_(assembler), before_(assembler.used_words_) {}
  ~Temporaries() { assembler_.used_words_ = before_; }
  Temporaries(const Temporaries&) = delete;
  Temporaries& operator=(const Temporaries&) = delete;

 private:
  Assembler& assembler_;
  std::uint32_t before_;
};

// A fourth argument is in rcx already.
template <typename Result, typename... Arguments>
void Assembler::call_map(Result (*function)(Run*, const MapView*, Arguments...), std::uint32_t map, int key) {
  mov(rdi, rbx);
  mov(rsi, reinterpret_cast<std::uint64_t>(&placed_.maps[map]));
  lea(rdx, at(key));
  invoke(function);
}

}  // namespace ubp::program
