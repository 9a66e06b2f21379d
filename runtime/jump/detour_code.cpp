// Counting, recording and calling consumers in a detour. See detour_code.h.
#include "runtime/jump/detour_code.h"

namespace ubp::runtime {
namespace {

// Spills rcx, and loads where the task counts; to the slow way where it does not.
void write_entry(Writer& writer, const DetourStorage& storage) {
  const std::uint32_t begin = writer.size();
  writer.storage(kStore, kRcx, storage.rcx);
  writer.storage(kLoad, kRcx, storage.state);
  writer.bytes({0x48, 0x8b, 0x49, storage.fast});  // mov fast(%rcx),%rcx
  const std::uint32_t to_slow = writer.size() + 2 - begin + kDetourSlowBytes;
  writer.bytes({0xe3, static_cast<std::uint8_t>(-static_cast<int>(to_slow))});  // jrcxz slow
}

// An instruction with a register, numbered as the hardware does, and a displacement from a base register below r8.
void with_memory(Writer& writer, std::initializer_list<std::uint8_t> opcode, std::uint8_t reg, std::uint8_t base, std::uint32_t offset,
                 bool wide = true) {
  const auto rex = static_cast<std::uint8_t>((wide ? 0x48 : 0x40) | (reg >= 8 ? 4 : 0));
  const bool is_short = offset < 128;
  if (rex != 0x40) writer.bytes({rex});
  writer.bytes(opcode);
  writer.bytes({static_cast<std::uint8_t>((is_short ? 0x40 : 0x80) | (reg & 7) << 3 | base)});
  if (base == kRsp) writer.bytes({0x24});  // SIB
  if (is_short) {
    writer.bytes({static_cast<std::uint8_t>(offset)});
  } else {
    writer.word(offset);
  }
}

constexpr std::uint8_t kCallClobbered[] = {kRdx, kRsi, kRdi, 8, 9, 10, 11};  // but rax and rcx
constexpr std::uint8_t kCallKept[] = {3, 5, 12, 13, 14};                     // rbx, rbp, ..., but r15 and rsp

void save_register(Writer& writer, std::uint8_t reg, std::uint8_t base, std::uint8_t opcode) {
  with_memory(writer, {opcode}, reg, base, static_cast<std::uint32_t>(offsetof(DetourSave, registers) + reg * sizeof(std::uint64_t)));
}

// With a pointer to the DetourSave; rax, rcx, rdx and rdi are lost.
void write_call(Writer& writer, std::uint64_t function) {
  writer.bytes({0x48, 0x89, 0xe7, 0x48, 0xb8});  // mov %rsp,%rdi; mov $function,%rax; call *%rax
  writer.quad(function);
  writer.bytes({0xff, 0xd0});
}

void write_xsave(Writer& writer, const DetourConsumers& consumers, bool restores) {
  writer.bytes({0xb8});
  writer.word(static_cast<std::uint32_t>(consumers.components));
  writer.bytes({0xba});
  writer.word(static_cast<std::uint32_t>(consumers.components >> 32));
  const bool compacts = consumers.compacts && !restores;
  with_memory(writer, {0x0f, static_cast<std::uint8_t>(compacts ? 0xc7 : 0xae)}, restores ? 5 : 4, kRsp, offsetof(DetourSave, image));
}

void write_xmm(Writer& writer, bool restores) {
  for (std::uint8_t reg = 0; reg < 16; ++reg) {
    with_memory(writer, {0x0f, static_cast<std::uint8_t>(restores ? 0x28 : 0x29)}, reg, kRsp,
                static_cast<std::uint32_t>(offsetof(DetourSave, vectors)) + 16U * reg, false);  // movaps
  }
}

// Saves what of vector and floating-point state the consumers may change, and sets MXCSR and x87 as a C function may expect them, as the
// kernel does for handlers. The task is marked: no signal sees it.
void write_save_floating(Writer& writer, const DetourConsumers& consumers) {
  if (consumers.needs.all_fp && consumers.save != 0) return write_call(writer, consumers.save);
  if (consumers.needs.all_fp) {
    write_xsave(writer, consumers, false);
  } else if (consumers.needs.xmm) {
    write_xmm(writer, false);
  } else {
    return;
  }
  constexpr std::uint32_t kDefault = 0x1f80;             // all exceptions masked, and none met
  with_memory(writer, {0x0f, 0xae}, 3, kRsp, offsetof(DetourSave, mxcsr), false);  // stmxcsr
  with_memory(writer, {kLoad}, kRax, kRsp, offsetof(DetourSave, mxcsr), false);
  writer.bytes({0x83, 0xe0, 0xc0, 0x3d});                // and $~0x3f,%eax; cmp $kDefault,%eax: what was met does not matter
  writer.word(kDefault);
  writer.bytes({0x74, 14, 0x68});                        // je; pushq $kDefault; ldmxcsr (%rsp); lea 8(%rsp),%rsp
  writer.word(kDefault);
  writer.bytes({0x0f, 0xae, 0x14, 0x24, 0x48, 0x8d, 0x64, 0x24, 0x08});
  if (consumers.needs.all_fp) writer.bytes({0xdb, 0xe3});  // fninit
}

void write_restore_floating(Writer& writer, const DetourConsumers& consumers) {
  if (consumers.needs.all_fp) {
    if (consumers.restore != 0) return write_call(writer, consumers.restore);
    return write_xsave(writer, consumers, true);
  }
  if (!consumers.needs.xmm) return;
  write_xmm(writer, true);
  with_memory(writer, {0x0f, 0xae}, 2, kRsp, offsetof(DetourSave, mxcsr), false);  // ldmxcsr: cheaper than to look whether it is another
}

// Counts and records, without a mark: what makes the record one is the store of the head. Where there is no room, the compare is by
// jrcxz too: limit - head = limit + ~head + 1, by instructions that leave the flags alone.
void write_record(Writer& writer, DetourInfo& info, const DetourConsumers& consumers, std::uint32_t counter, const DetourStorage& storage) {
  const auto here = [&] { return static_cast<std::uint16_t>(writer.size()); };
  const auto increment = [&](std::uint8_t base, std::uint32_t offset) {
    with_memory(writer, {kLoad}, kRax, base, offset);
    writer.bytes({0x48, 0x8d, 0x40, 0x01});                 // lea 1(%rax),%rax
    with_memory(writer, {kStore}, kRax, base, offset);
  };
  info.kind = DetourInfo::Kind::kRecords;
  const std::uint32_t begin = writer.size();
  write_entry(writer, storage);
  writer.storage(kLoad, kRcx, storage.state);
  with_memory(writer, {kLoad}, kRcx, kRcx, consumers.ring);
  writer.bytes({0xe3, 0});                                  // jrcxz slow: it has no ring yet
  *writer.back(1) = static_cast<std::uint8_t>(begin - kDetourSlowBytes - writer.size());
  writer.storage(kStore, kRax, storage.rax);
  info.rax_saved = here();
  writer.storage(kStore, kRdx, storage.rdx);
  info.saved = here();
  writer.storage(kLoad, kRcx, storage.state);
  with_memory(writer, {kLoad}, kRdx, kRcx, storage.fast);
  increment(kRdx, counter);
  info.hit_counted = here();
  with_memory(writer, {kLoad}, kRax, kRcx, consumers.head);
  with_memory(writer, {kLoad}, kRcx, kRcx, consumers.limit);
  writer.bytes({0x48, 0xf7, 0xd0, 0x48, 0x8d, 0x4c, 0x01, 0x01, 0xe3, 0});  // not %rax; lea 1(%rcx,%rax),%rcx; jrcxz full
  const std::uint32_t jump = writer.size();
  static_assert(kRingRecords == 1 << 16 && kRecordBytes == 3 * 8);
  writer.bytes({0x48, 0xf7, 0xd0, 0x0f, 0xb7, 0xc0, 0x48, 0x8d, 0x04, 0x40});  // not %rax; movzwl %ax,%eax; lea (%rax,%rax,2),%rax
  writer.storage(kLoad, kRcx, storage.state);
  with_memory(writer, {kLoad}, kRdx, kRcx, consumers.tid, false);
  with_memory(writer, {kLoad}, kRcx, kRcx, consumers.ring);
  writer.bytes({0x48, 0x8d, 0x0c, 0xc1});                   // lea (%rcx,%rax,8),%rcx
  with_memory(writer, {kStore}, kRdx, kRcx, kRecordTask, false);
  with_memory(writer, {0xc7}, 0, kRcx, kRecordPoint, false);
  writer.word(consumers.point);
  with_memory(writer, {0xc7}, 0, kRcx, kRecordCounter, false);
  writer.word(consumers.needs.recorder);
  writer.bytes({0x0f, 0x31, 0x89, 0x01, 0x89, 0x51, 0x04}); // rdtsc; mov %eax,(%rcx); mov %edx,4(%rcx)
  writer.storage(kLoad, kRcx, storage.state);
  increment(kRcx, consumers.head);
  info.consumed = here();
  writer.bytes({0xeb, 0});                                  // jmp, over what follows
  info.full = here();
  *writer.back(writer.size() - jump + 1) = static_cast<std::uint8_t>(writer.size() - jump);
  increment(kRdx, consumers.dropped);
  info.full_counted = here();
  *writer.back(writer.size() - info.full + 1) = static_cast<std::uint8_t>(writer.size() - info.full);
  writer.storage(kLoad, kRax, storage.rax);
  writer.storage(kLoad, kRdx, storage.rdx);
  writer.storage(kLoad, kRcx, storage.rcx);
}

}  // namespace

void write_slow_way(Writer& writer, const DetourStorage& storage) {
  writer.storage(kLoad, kRcx, storage.rcx);
  writer.bytes({0xcc});
}

void write_count(Writer& writer, std::uint32_t counter, const DetourStorage& storage) {
  write_entry(writer, storage);
  writer.storage(kStore, kRax, storage.rax);
  writer.bytes({0x48, 0x8b, 0x81});  // mov counter(%rcx),%rax
  writer.word(counter);
  writer.bytes({0x48, 0x8d, 0x40, 0x01});  // lea 1(%rax),%rax
  writer.bytes({0x48, 0x89, 0x81});        // mov %rax,counter(%rcx)
  writer.word(counter);
  writer.storage(kLoad, kRax, storage.rax);
  writer.storage(kLoad, kRcx, storage.rcx);
}

void write_segment_count(Writer& writer, std::uint32_t counter, const DetourStorage& storage) {
  writer.bytes({0x65, 0x48, 0xff, 0x04, 0x25});  // incq %gs:counter
  writer.word(static_cast<std::uint32_t>(storage.segment) + counter);
}

// Saves all, counts, marks the task, calls the consumers and restores all. It is on the task's own stack in between. The stack
// pointer is kept in r15: through memory, it would tie each hit to the one before.
void write_consumers(Writer& writer, DetourInfo& info, const DetourConsumers& consumers, std::uint32_t counter, const DetourStorage& storage) {
  if (consumers.needs.recorder != 0) return write_record(writer, info, consumers, counter, storage);
  info.kind = DetourInfo::Kind::kConsumers;
  const auto here = [&] { return static_cast<std::uint16_t>(writer.size()); };
  const auto saved = [&](std::uint8_t opcode, std::uint8_t reg, std::size_t offset, bool wide = true) {
    with_memory(writer, {opcode}, reg, kRsp, static_cast<std::uint32_t>(offset), wide);
  };
  write_entry(writer, storage);
  writer.storage(kLoad, kRcx, storage.state);
  with_memory(writer, {kLoad}, kRcx, kRcx, consumers.stack);
  save_register(writer, kRax, kRcx, kStore);
  info.rax_saved = here();
  writer.bytes({0x9f, 0x0f, 0x90, 0xc0});            // lahf; seto %al
  with_memory(writer, {kStore}, kRax, kRcx, offsetof(DetourSave, status));
  writer.storage(kLoad, kRax, storage.rcx);
  with_memory(writer, {kStore}, kRax, kRcx, offsetof(DetourSave, registers[kRcx]));
  for (const std::uint8_t reg : kCallClobbered) save_register(writer, reg, kRcx, kStore);
  if (consumers.needs.reads) {
    for (const std::uint8_t reg : kCallKept) save_register(writer, reg, kRcx, kStore);
  }
  save_register(writer, kRsp, kRcx, kStore);
  save_register(writer, kR15, kRcx, kStore);
  info.saved = here();
  writer.bytes({0x49, 0x89, 0xe7, 0x48, 0x89, 0xcc});  // mov %rsp,%r15; mov %rcx,%rsp
  if (consumers.is_inside) {
    writer.bytes({0x9c});                                // pushfq; popq rflags(%rsp): as rsp is after it; cld
    with_memory(writer, {0x8f}, 0, kRsp, offsetof(DetourSave, rflags), false);
    writer.bytes({0xfc});
    info.direction_saved = here();
  }
  saved(kLoad, kRsi, offsetof(DetourSave, context[kContextTask]));
  saved(kLoad, kRdx, offsetof(DetourSave, counters));
  with_memory(writer, {kLoad}, kRcx, kRdx, counter);
  writer.bytes({0x48, 0xff, 0xc1, 0x48, 0x89, 0xc8, 0x48, 0xc1, 0xe0, kMarkBits, 0x48, 0x83, 0xc8, kDetourMark});
  with_memory(writer, {kStore}, kRax, kRsi, consumers.mark);   // inc %rcx; mov %rcx,%rax; shl; or; store
  with_memory(writer, {kStore}, kRcx, kRdx, counter);
  info.hit_counted = here();
  with_memory(writer, {0xc7}, 0, kRsi, storage.fast);          // movq $0
  writer.word(0);
  writer.bytes({0x64, 0x8b, 0x04, 0x25});                      // mov errno,%eax
  writer.word(static_cast<std::uint32_t>(consumers.error));
  saved(kStore, kRax, offsetof(DetourSave, error), false);
  const bool disables = consumers.needs.all_fp && consumers.cancel != 0;  // others call nothing that could be cancelled
  const auto cancel = [&](std::initializer_list<std::uint8_t> opcode) {
    writer.bytes(opcode);
    writer.word(static_cast<std::uint32_t>(consumers.cancel));
  };
  if (disables) {
    cancel({0x64, 0x0f, 0xb6, 0x04, 0x25});                    // movzbl cancel,%eax
    saved(kStore, kRax, offsetof(DetourSave, cancel), false);
    cancel({0x64, 0xf0, 0x80, 0x0c, 0x25});                    // lock orb $1,cancel
    writer.bytes({1});
  }
  write_save_floating(writer, consumers);
  writer.bytes({0x48, 0xb8});                                  // mov $list,%rax
  writer.quad(consumers.list);
  writer.bytes({0x48, 0x8b, 0x00, 0x48, 0x85, 0xc0, 0x74, 0}); // mov (%rax),%rax; test; jz: taken out since the hit
  const std::uint32_t loop = writer.size();
  saved(kStore, kRax, offsetof(DetourSave, context[kContextConsumer]));
  saved(kLoad, kRdx, offsetof(DetourSave, counters));
  with_memory(writer, {kLoad}, kRcx, kRax, consumers.counter);
  writer.bytes({0x48, 0xff, 0x04, 0x0a});                      // incq (%rdx,%rcx)
  saved(0x8d, kRdi, offsetof(DetourSave, context));            // lea
  with_memory(writer, {kLoad}, kRsi, kRax, consumers.data);
  with_memory(writer, {0xff}, 2, kRax, consumers.function, false);  // call
  saved(kLoad, kRax, offsetof(DetourSave, context[kContextConsumer]));
  with_memory(writer, {kLoad}, kRax, kRax, consumers.next);
  writer.bytes({0x48, 0x85, 0xc0, 0x75, 0});                   // test; jnz loop
  *writer.back(1) = static_cast<std::uint8_t>(loop - writer.size());
  *writer.back(writer.size() - loop + 1) = static_cast<std::uint8_t>(writer.size() - loop);
  info.consumed = here();
  info.modifies = consumers.needs.modifies ? 1 : 0;
  saved(kLoad, kRax, offsetof(DetourSave, error), false);
  writer.bytes({0x64, 0x3b, 0x04, 0x25});              // cmp errno,%eax; je: a store costs more
  writer.word(static_cast<std::uint32_t>(consumers.error));
  writer.bytes({0x74, 8, 0x64, 0x89, 0x04, 0x25});     // mov %eax,errno
  writer.word(static_cast<std::uint32_t>(consumers.error));
  if (disables) {
    saved(kLoad, kRax, offsetof(DetourSave, cancel), false);
    writer.bytes({0xa8, 1, 0x75, 10});                 // test $1,%al; jnz: it was disabled
    cancel({0x64, 0xf0, 0x80, 0x24, 0x25});            // lock andb $~1,cancel
    writer.bytes({0xfe});
  }
  write_restore_floating(writer, consumers);
  saved(kLoad, kRsi, offsetof(DetourSave, context[kContextTask]));
  with_memory(writer, {kLoad}, kRax, kRsi, consumers.optimised);  // 0 in a forked child, whose states are wiped
  with_memory(writer, {kStore}, kRax, kRsi, storage.fast);
  with_memory(writer, {0xc7}, 0, kRsi, consumers.mark);
  writer.word(0);
  with_memory(writer, {0x83}, 7, kRsi, consumers.deferred);
  writer.bytes({0, 0x0f, 0x85});                       // cmpq $0; jne late
  writer.word(0);
  info.late = here();                                  // filled in by write_late()
  if (consumers.is_inside) {
    with_memory(writer, {0xf7}, 0, kRsp, offsetof(DetourSave, rflags), false);  // testl
    writer.word(kDirectionFlag);
    writer.bytes({0x74, 0x01, 0xfd});                  // jz; std
  }
  saved(kLoad, kRax, offsetof(DetourSave, status));
  writer.bytes({0x04, 0x7f, 0x9e});                    // add $0x7f,%al: sets OF as it was; sahf
  for (const std::uint8_t reg : kCallClobbered) save_register(writer, reg, kRsp, kLoad);
  if (consumers.needs.modifies) {
    for (const std::uint8_t reg : kCallKept) save_register(writer, reg, kRsp, kLoad);
  }
  save_register(writer, kRax, kRsp, kLoad);
  writer.bytes({0x48, 0x89, 0xe1});                    // mov %rsp,%rcx
  info.restored = here();
  writer.bytes({0x4c, 0x89, 0xfc});                    // mov %r15,%rsp
  save_register(writer, kR15, kRcx, kLoad);
  save_register(writer, kRcx, kRcx, kLoad);
}

// A signal was put off: an int3 calls its handler, and the hit goes on from there. If there is none any more, sets the thread's mask as
// it was.
void write_late(Writer& writer, DetourInfo& info, std::uint32_t deferred) {
  if (info.kind != DetourInfo::Kind::kConsumers) return;
  const std::uint32_t resume = info.late;
  info.late = static_cast<std::uint16_t>(writer.size());
  xol::store32(writer.back(writer.size() - resume + 4), info.late - resume);
  writer.bytes({0xcc});                                  // rsi: the task's state
  info.deliver = static_cast<std::uint16_t>(writer.size());
  with_memory(writer, {0x83}, 7, kRsi, deferred);
  writer.bytes({0, 0x75, 0});                            // cmpq $0; jne to the int3: another's SIGTRAP came in its way
  *writer.back(1) = static_cast<std::uint8_t>(info.deliver - 1 - writer.size());
  writer.bytes({0xb8, 14, 0, 0, 0, 0xbf, 2, 0, 0, 0});   // rt_sigprocmask, SIG_SETMASK
  with_memory(writer, {0x8d}, kRsi, kRsp, offsetof(DetourSave, mask));
  writer.bytes({0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f, 0x05});
  // They came at once, and translation took it back; else it is done here.
  with_memory(writer, {kLoad}, kRsi, kRsp, offsetof(DetourSave, context[kContextTask]));
  with_memory(writer, {0xc7}, 0, kRsi, deferred);
  writer.word(0);
  writer.bytes({0xe9});
  writer.word(resume - (writer.size() + 4));
}

}  // namespace ubp::runtime
