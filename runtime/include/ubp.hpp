// UBP for C++17: ubp.h with objects that clean up after themselves. Header only; link with libubp as for ubp.h.
//
//   #include <ubp.hpp>
//
//   auto session = ubp::Session::start();
//   std::atomic<std::uint64_t> bytes{0};
//   auto probe = ubp::Probe::create("libc:malloc", [&](const ubp::Hit& hit) { bytes += hit.argument<std::size_t>(0); });
//   if (!probe) std::fprintf(stderr, "%s\n", probe.error().text().c_str());
//   ...
//   probe->stats()->hits                                 exactly the calls of malloc since then
//
// What ubp.h says of its functions holds for these, which add ownership: thread-safety, signal handlers, fork, and the errors
// common to all (UBP_E_IN_CONSUMER, UBP_E_NOT_ACTIVE, UBP_E_WRONG_PROCESS, UBP_E_BUSY), which the texts below leave out.
// What makes something returns a Result, what changes something a ubp_status. Nothing here throws; it compiles with
// -fno-exceptions and -fno-rtti. Several threads may use one object at once through its const members only.
#ifndef UBP_HPP
#define UBP_HPP

#include <ubp.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace ubp {

// What went wrong: a status, and what ubp_refusal says besides where the call gives one.
struct Error {
  ubp_status status = UBP_OK;
  std::string message;            // one line, never empty; ubp_status_string() where nothing more is known
  std::string hint;               // what to do; may be empty
  std::uint64_t address = 0;      // run-time address; 0: none is known
  std::uint64_t elf_address = 0;  // as nm and objdump print it for the module; 0: none is known
  std::string module;             // "libc.so.6"; empty: none is known
  std::string symbol;             // "malloc+0x4"; empty: none is known
  std::uint32_t line = 0;         // in the specification, from 1; 0: not from a specification
  std::uint32_t column = 0;
  bool is_exact = false;          // the item meant this very address; else a glob or insn: came upon it

  // All of it on one line: "1:1: no function 'mallok' in libc.so.6 (did you mean 'malloc'?)".
  std::string text() const {
    const std::string place = line != 0 ? std::to_string(line) + ":" + std::to_string(column) + ": " : "";
    return place + message + (hint.empty() ? "" : " (" + hint + ")");
  }
};

namespace detail {

template <typename T>
T sized() {
  T structure{};
  structure.struct_size = sizeof structure;
  return structure;
}

inline Error error_of(ubp_status status, const ubp_refusal& refusal = {}) {
  return {status, refusal.message[0] != '\0' ? refusal.message : ubp_status_string(status), refusal.hint, refusal.address,
          refusal.elf_address, refusal.module, refusal.symbol, refusal.line, refusal.column, refusal.is_exact != 0};
}

}  // namespace detail

// A value, or the error that stood in its way. Ownership: of either. Thread-safety: as T.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Error error) : state_(std::move(error)) {}

  // Whether there is a value.
  explicit operator bool() const { return std::holds_alternative<T>(state_); }
  ubp_status status() const { return *this ? UBP_OK : std::get_if<Error>(&state_)->status; }

  // The value. Where there is none, the program ends: the error on standard error, and std::abort().
  T& value() & { return *checked(std::get_if<T>(&state_)); }
  const T& value() const& { return *checked(std::get_if<T>(&state_)); }
  T&& value() && { return std::move(*checked(std::get_if<T>(&state_))); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // The error. Where there is none, the program ends, likewise.
  const Error& error() const { return *checked(std::get_if<Error>(&state_)); }

 private:
  template <typename P>
  P* checked(P* wanted) const {
    if (wanted != nullptr) return wanted;
    const Error* const error = std::get_if<Error>(&state_);
    const std::string text = error != nullptr ? "value() of an error: " + error->text() : "error() of a value";
    std::fprintf(stderr, "ubp: Result::%s\n", text.c_str());
    std::abort();
  }

  std::variant<T, Error> state_;
};

// What a test framework prints of a Result, or anybody: on any stream that takes a std::string.
template <typename Stream, typename T>
auto operator<<(Stream& stream, const Result<T>& result) -> decltype(stream << std::string()) {
  return stream << (result ? std::string("a value") : "error: " + result.error().text());
}

// ---- The runtime -------------------------------------------------------------------------------------------------------

// Counts of the whole process.
inline Result<ubp_stats> stats() {
  auto stats = detail::sized<ubp_stats>();
  if (const ubp_status status = ubp_read(&stats)) return detail::error_of(status);
  return stats;
}

// ubp_init() to ubp_shutdown(). The runtime is one for the process: the first Session to end shuts it down for all. Probes that
// outlive it are stale, and their destructors do no more than free their consumers. It can be moved, not assigned.
class [[nodiscard]] Session {
 public:
  // config: its struct_size is set here. Returns UBP_E_INVALID, UBP_E_OTHER_RUNTIME.
  static Result<Session> start(ubp_config config = {}) {
    config.struct_size = sizeof config;
    if (const ubp_status status = ubp_init(&config)) return detail::error_of(status);
    return Session();
  }

  Session(Session&& other) noexcept : is_on_(std::exchange(other.is_on_, false)) {}
  ~Session() { shutdown(); }

  // Ends it now. Returns UBP_OK, also when it has ended; UBP_E_SYSTEM: the text could not be written, and the session goes on.
  ubp_status shutdown() {
    const ubp_status status = is_on_ ? ubp_shutdown() : UBP_OK;
    is_on_ = status != UBP_OK;
    return status;
  }

 private:
  Session() = default;
  bool is_on_ = true;
};

// ---- Inside a consumer -------------------------------------------------------------------------------------------------

// A hit, as its consumer sees it: ubp_context. Valid until the consumer returns, in its thread. Async-signal-safe.
class Hit {
 public:
  explicit Hit(const ubp_context* context) : context_(context) {}

  std::uint64_t ip() const { return ubp_context_ip(context_); }
  std::uint64_t register_value(ubp_register_id id) const { return ubp_context_register(context_, id); }
  std::uint64_t flags() const { return ubp_context_flags(context_); }
  std::uint32_t thread_id() const { return ubp_context_thread_id(context_); }
  // The index-th integer or pointer argument at a function's entry, as the integer, enumeration or pointer that it is.
  template <typename T = std::uint64_t>
  T argument(unsigned index) const {
    return as<T>(ubp_context_argument(context_, index));
  }
  // The probe's handle, to compare with Probe::handle().
  ubp_probe* probe() const { return ubp_context_probe(context_); }
  // Returns UBP_OK; UBP_E_INVALID: no such register, or UBP_RSP; UBP_E_REFUSED: the probe was created without UBP_PROBE_MODIFY.
  ubp_status set_register(ubp_register_id id, std::uint64_t value) const { return ubp_context_set_register(context_, id, value); }
  // Ends the call: the function returns value at once, an integer, enumeration or pointer as it is declared. Returns UBP_OK;
  // UBP_E_REFUSED: the probe was created without UBP_PROBE_OVERRIDE, or an earlier consumer has ended it. See
  // ubp_context_return().
  template <typename T>
  ubp_status return_early(T value) const {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T> || std::is_pointer_v<T> || std::is_null_pointer_v<T>,
                  "a result in a general register");
    if constexpr (std::is_null_pointer_v<T>) {
      return ubp_context_return(context_, 0);
    } else if constexpr (std::is_pointer_v<T>) {
      return ubp_context_return(context_, reinterpret_cast<std::uint64_t>(value));
    } else {
      return ubp_context_return(context_, static_cast<std::uint64_t>(value));
    }
  }
  // What the function returns, as the integer, enumeration or pointer that it is; nothing: the hit is no return. See
  // ubp_context_retval().
  template <typename T = std::uint64_t>
  std::optional<T> returned() const {
    std::uint64_t value = 0;
    if (ubp_context_retval(context_, &value) != UBP_OK) return std::nullopt;
    return as<T>(value);
  }
  // How long a call took, and which calls it was made in; nothing: the probe is none of "call:". See ubp_call.
  std::optional<ubp_call> call() const {
    ubp_call call{};
    call.struct_size = sizeof call;
    if (ubp_context_call(context_, &call) != UBP_OK) return std::nullopt;
    return call;
  }
  // The stack, the innermost frame first. Returns how many addresses there are, at most `limit`; 0: the probe was created
  // without UBP_PROBE_BACKTRACE. See ubp_context_backtrace().
  std::size_t backtrace(std::uint64_t* addresses, std::size_t limit) const {
    return ubp_context_backtrace(context_, addresses, limit);
  }
  const ubp_context* context() const { return context_; }

 private:
  template <typename T>
  static T as(std::uint64_t value) {
    static_assert(std::is_integral_v<T> || std::is_enum_v<T> || std::is_pointer_v<T>, "in a general register");
    if constexpr (std::is_pointer_v<T>) {
      return reinterpret_cast<T>(value);
    } else if constexpr (std::is_same_v<std::remove_cv_t<T>, bool>) {
      return (value & 0xff) != 0;  // psABI 3.2.3: the bits above the lowest 8 are unspecified
    } else {
      return static_cast<T>(value);
    }
  }

  const ubp_context* context_;
};

namespace detail {

// A probe's part on the heap: what the library knows of it, and its consumer, at an address that stays.
struct Registration {
  ubp_probe* handle = nullptr;
  Registration* next = nullptr;
  void (*destroy)(Registration*) = [](Registration* self) { delete self; };
};

template <typename F>
struct Consumer : Registration {
  template <typename G>
  explicit Consumer(G&& function) : call(std::forward<G>(function)) {
    destroy = [](Registration* self) { delete static_cast<Consumer*>(self); };
  }
  static void run(const ubp_context* context, void* data) noexcept { static_cast<Consumer*>(data)->call(Hit(context)); }
  F call;
};

// Those of this thread whose Probe is gone while the library still has them: see ~Probe().
__attribute__((visibility("default"))) inline thread_local Registration* t_parked = nullptr;

// Unregisters. Returns whether the library has let go of the probe: its consumer runs no more, and never will.
inline bool unregister(ubp_probe* handle) {
  const auto is_gone = [](ubp_status status) { return status == UBP_E_STALE || status == UBP_E_NOT_ACTIVE; };
  const ubp_status status = ubp_unregister(handle);
  if (status != UBP_OK) return is_gone(status);
  auto stats = sized<ubp_probe_stats>();
  return is_gone(ubp_probe_read(handle, &stats));  // else a transaction is open, and it goes at its commit
}

// Unregisters and destroys, or parks what the library does not let go of.
inline bool drop(Registration* registration) {
  const bool is_gone = unregister(registration->handle);
  if (is_gone) {
    registration->destroy(registration);
  } else {
    registration->next = std::exchange(t_parked, registration);
  }
  return is_gone;
}

inline void drop_parked() {
  for (Registration* rest = std::exchange(t_parked, nullptr); rest != nullptr;) drop(std::exchange(rest, rest->next));
}

inline void release(Registration* registration) {
  if (registration != nullptr && drop(registration)) drop_parked();
}

}  // namespace detail

// ---- Maps of programs --------------------------------------------------------------------------------------------------

// A key, a value, or an element of one: ubp_value with its text. Thread-safety: as std::string.
class Value {
 public:
  // Implicit: an integer, or a text, to be compared with or to look a key up.
  template <typename T, typename = std::enable_if_t<std::is_integral_v<T> || std::is_enum_v<T>>>
  Value(T number) : kind_(std::is_signed_v<T> ? UBP_VALUE_SIGNED : UBP_VALUE_UNSIGNED), number_(static_cast<std::int64_t>(number)) {}
  Value(const char* text) : kind_(UBP_VALUE_TEXT), text_(text) {}
  Value(std::string text) : kind_(UBP_VALUE_TEXT), text_(std::move(text)) {}
  explicit Value(const ubp_value& value)
      : kind_(static_cast<ubp_value_kind>(value.kind)), number_(value.number), text_(value.text, value.length) {}

  ubp_value_kind kind() const { return kind_; }
  bool is_number() const { return kind_ == UBP_VALUE_SIGNED || kind_ == UBP_VALUE_UNSIGNED; }
  // 0 of texts. Of UBP_VALUE_UNSIGNED above the largest std::int64_t: cast it.
  std::int64_t number() const { return number_; }
  // Or bytes. Empty of numbers.
  const std::string& text() const { return text_; }

  // Numbers are equal whether signed or not, and so are texts and bytes.
  friend bool operator==(const Value& left, const Value& right) {
    return left.is_number() == right.is_number() && left.number_ == right.number_ && left.text_ == right.text_;
  }
  friend bool operator!=(const Value& left, const Value& right) { return !(left == right); }

 private:
  ubp_value_kind kind_;
  std::int64_t number_ = 0;
  std::string text_;
};

// What a test framework prints of one: 5, "text".
template <typename Stream>
auto operator<<(Stream& stream, const Value& value) -> decltype(stream << std::string()) {
  if (!value.is_number()) return stream << '"' + value.text() + '"';
  return stream << (value.kind() == UBP_VALUE_SIGNED ? std::to_string(value.number())
                                                     : std::to_string(static_cast<std::uint64_t>(value.number())));
}

// A copy of ubp_map_entry, whose members have the same meaning.
struct MapEntry {
  ubp_aggregate aggregate = UBP_AGGREGATE_NONE;
  std::vector<Value> keys, values;
  std::uint64_t count = 0;
  std::int64_t total = 0;
  std::vector<ubp_bucket> buckets;

  // The first of them: all there is, but of a tuple.
  std::int64_t number() const { return values.empty() ? 0 : values.front().number(); }
  std::string text() const { return values.empty() ? "" : values.front().text(); }
};

// What stood in a map when it was read: entries in the order in which they would be printed.
class Map {
 public:
  std::size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  std::vector<MapEntry>::const_iterator begin() const { return entries_.begin(); }
  std::vector<MapEntry>::const_iterator end() const { return entries_.end(); }

  // The entry of a key, each of its elements an argument: find("/etc/passwd", 3); of a map without keys, find(). nullptr: it
  // is not there. Valid as long as the Map.
  template <typename... Key>
  const MapEntry* find(const Key&... key) const {
    const std::vector<Value> wanted{Value(key)...};
    for (const MapEntry& entry : entries_) {
      if (entry.keys == wanted) return &entry;
    }
    return nullptr;
  }
  // The number of a key, or its text; 0 and "" where it is not there.
  template <typename... Key>
  std::int64_t number(const Key&... key) const {
    const MapEntry* const entry = find(key...);
    return entry != nullptr ? entry->number() : 0;
  }
  template <typename... Key>
  std::string text(const Key&... key) const {
    const MapEntry* const entry = find(key...);
    return entry != nullptr ? entry->text() : std::string();
  }

 private:
  friend class Probe;
  std::vector<MapEntry> entries_;
};

// ---- Probes ------------------------------------------------------------------------------------------------------------

// Where a probe goes: a specification, an address, or a function by name.
class Target {
 public:
  // In the language of UBP_PROBES (ubp-probes(7)): "libc:malloc; parse*", "ns::f(int, char const*)", and its programs:
  // "libc:malloc /arg0 > 1000/ { @big = count(); }". Implicit:
  // Probe::create("libc:malloc").
  Target(const char* spec) : text_(spec) {}
  Target(std::string spec) : text_(std::move(spec)) {}
  // One instruction at a run-time address; a function's entry.
  static Target address(const void* address) {
    Target target("");
    target.kind_ = Kind::kAddress;
    target.address_ = address;
    return target;
  }
  template <typename F, typename = std::enable_if_t<std::is_function_v<F>>>
  static Target address(F* function) {
    return address(reinterpret_cast<const void*>(function));
  }
  // module: its file's name, or that without version or suffix; empty: the executable. symbol: no glob. offset: from its entry.
  static Target symbol(std::string module, std::string symbol, std::uint64_t offset = 0) {
    Target target(std::move(symbol));
    target.kind_ = Kind::kSymbol;
    target.module_ = std::move(module);
    target.offset_ = offset;
    return target;
  }

 private:
  friend class Probe;
  enum class Kind { kSpec, kAddress, kSymbol };

  ubp_status add(const ubp_options& options, ubp_probe*& probe, ubp_refusal& refusal) const {
    if (kind_ == Kind::kSpec) return ubp_register(text_.c_str(), &options, &probe, &refusal);
    if (kind_ == Kind::kAddress) return ubp_register_address(address_, &options, &probe, &refusal);
    const char* const module = module_.empty() ? nullptr : module_.c_str();
    return ubp_register_symbol(module, text_.c_str(), offset_, &options, &probe, &refusal);
  }

  Kind kind_ = Kind::kSpec;
  std::string text_, module_;  // specification or symbol
  const void* address_ = nullptr;
  std::uint64_t offset_ = 0;
};

// A registered probe and its consumer. Ownership: of both. Move-only; the consumer stays where it is.
class [[nodiscard]] Probe {
 public:
  // Counts hits. flags: UBP_PROBE_*. Returns UBP_E_SPEC, UBP_E_NOT_FOUND, UBP_E_REFUSED, UBP_E_NO_MEMORY, UBP_E_NO_ROOM,
  // UBP_E_SYSTEM, UBP_E_INVALID, UBP_E_TRANSACTION.
  static Result<Probe> create(const Target& target, std::uint32_t flags = 0) {
    return create(target, flags, nullptr, new (std::nothrow) detail::Registration);
  }

  // The same, and calls consumer(hit) for every hit, in the thread that made it, before the instruction: see ubp_consumer.
  // consumer: any callable void(const ubp::Hit&), copied or moved to the heap. Threads call it at the same time: it guards its
  // own state. An exception that leaves it ends the program.
  template <typename F, typename = std::enable_if_t<std::is_invocable_v<std::decay_t<F>&, const Hit&>>>
  static Result<Probe> create(const Target& target, F&& consumer, std::uint32_t flags = 0) {
    using Consumer = detail::Consumer<std::decay_t<F>>;
    return create(target, flags, &Consumer::run, new (std::nothrow) Consumer(std::forward<F>(consumer)));
  }

  Probe(Probe&& other) noexcept : registration_(std::exchange(other.registration_, nullptr)) {}
  Probe& operator=(Probe&& other) noexcept {
    if (this != &other) detail::release(std::exchange(registration_, std::exchange(other.registration_, nullptr)));
    return *this;
  }
  // Unregisters the probe, waits for its running consumers, and destroys the consumer: hold no lock that the consumer takes.
  // In a transaction the probe goes at its end, committed or not. Where it cannot go (the text cannot be written; inside a
  // consumer; in a signal handler that interrupted a call), both stay until this thread ends a Probe or a Transaction again.
  ~Probe() { detail::release(registration_); }

  // Whether it has a probe: not so once it was moved from, unregistered or detached.
  explicit operator bool() const { return registration_ != nullptr; }
  // For the functions of ubp.h; nullptr: it has none. Ownership stays here.
  ubp_probe* handle() const { return registration_ != nullptr ? registration_->handle : nullptr; }

  // Hits count, and run the consumer, while the probe is enabled. disable() also waits for running consumers. Both return
  // UBP_E_STALE: the probe is gone; UBP_E_SYSTEM, UBP_E_NO_MEMORY, UBP_E_TRANSACTION. In a transaction: at its commit.
  ubp_status enable() { return ubp_enable(handle()); }
  ubp_status disable() { return ubp_disable(handle()); }

  // As the destructor, at once and with its status; in a transaction: at its end. Returns UBP_E_STALE: the probe is gone;
  // UBP_E_SYSTEM, UBP_E_TRANSACTION, after which it is as it was.
  ubp_status unregister() {
    const ubp_status status = ubp_unregister(handle());
    if (status == UBP_OK || status == UBP_E_STALE) detail::release(std::exchange(registration_, nullptr));
    return status;
  }

  // Lets the probe and its consumer stay until the program ends or ubp_shutdown(). Returns its handle.
  ubp_probe* detach() {
    ubp_probe* const handle = this->handle();
    registration_ = nullptr;
    return handle;
  }

  // Its counts. Returns UBP_E_STALE: the probe is gone.
  Result<ubp_probe_stats> stats() const {
    auto stats = detail::sized<ubp_probe_stats>();
    if (const ubp_status status = ubp_probe_read(handle(), &stats)) return detail::error_of(status);
    return stats;
  }

  // A map of its program; name: with its @. Exact for what threads did that were joined; see ubp_map_read(). Returns
  // UBP_E_NOT_FOUND: no program or no such map; UBP_E_STALE, UBP_E_INVALID, UBP_E_NO_MEMORY.
  Result<Map> map(const char* name) const {
    Map map;
    const auto add = [](const ubp_map_entry* entry, void* data) {
      static_cast<Map*>(data)->entries_.push_back(
          {static_cast<ubp_aggregate>(entry->aggregate), values_of(entry->keys, entry->key_count),
           values_of(entry->values, entry->value_count), entry->count, entry->total,
           std::vector<ubp_bucket>(entry->buckets, entry->buckets + entry->bucket_count)});
    };
    if (const ubp_status status = ubp_map_read(handle(), name, add, &map)) return detail::error_of(status);
    return map;
  }

  // Takes what its program has printed since the last call; see ubp_drain_text(). Returns as map().
  Result<std::string> drain_text() const {
    std::string text;
    const auto add = [](const char* piece, std::size_t length, void* data) {
      static_cast<std::string*>(data)->append(piece, length);
    };
    if (const ubp_status status = ubp_drain_text(handle(), add, &text)) return detail::error_of(status);
    return text;
  }

  // All that it asked for and did not get: first items not found, then instructions refused. Returns UBP_E_STALE.
  Result<std::vector<Error>> refusals() const {
    std::vector<Error> errors;
    for (;;) {
      auto refusal = detail::sized<ubp_refusal>();
      const ubp_status status = ubp_probe_refusal(handle(), errors.size(), &refusal);
      if (status == UBP_E_NOT_FOUND) return errors;
      if (status != UBP_OK) return detail::error_of(status);
      errors.push_back(detail::error_of(static_cast<ubp_status>(refusal.status), refusal));
    }
  }

 private:
  explicit Probe(detail::Registration* registration) : registration_(registration) {}

  static std::vector<Value> values_of(const ubp_value* values, std::size_t count) {
    std::vector<Value> copies;
    for (std::size_t i = 0; i < count; ++i) copies.emplace_back(values[i]);
    return copies;
  }

  static Result<Probe> create(const Target& target, std::uint32_t flags, ubp_consumer consumer, detail::Registration* own) {
    if (own == nullptr) return detail::error_of(UBP_E_NO_MEMORY);
    auto options = detail::sized<ubp_options>();
    options.flags = flags;
    options.consumer = consumer;
    options.data = own;
    auto refusal = detail::sized<ubp_refusal>();
    if (const ubp_status status = target.add(options, own->handle, refusal)) {
      own->destroy(own);
      return detail::error_of(status, refusal);
    }
    return Probe(own);
  }

  detail::Registration* registration_;
};

// ---- Transactions ------------------------------------------------------------------------------------------------------

// From begin() to commit() the calling thread's probes and changes are prepared, not made; then all are made, or none. Aborts
// unless committed. Ends in the thread that began it. It can be moved, not assigned.
class [[nodiscard]] Transaction {
 public:
  // Returns UBP_E_TRANSACTION: the thread has one open.
  static Result<Transaction> begin() {
    if (const ubp_status status = ubp_transaction_begin()) return detail::error_of(status);
    return Transaction();
  }

  Transaction(Transaction&& other) noexcept : is_open_(std::exchange(other.is_open_, false)) {}
  ~Transaction() { abort(); }

  // Returns UBP_E_TRANSACTION: a call in it failed, or it has ended; UBP_E_SYSTEM. Unless it succeeds, the probes created in it
  // are gone, and its changes not made.
  ubp_status commit() { return is_open_ ? end(ubp_transaction_commit()) : UBP_E_TRANSACTION; }
  // Returns UBP_OK, also when it has ended.
  ubp_status abort() { return is_open_ ? end(ubp_transaction_abort()) : UBP_OK; }

 private:
  Transaction() = default;

  ubp_status end(ubp_status status) {
    is_open_ = status == UBP_E_IN_CONSUMER || status == UBP_E_BUSY || status == UBP_E_WRONG_PROCESS || status == UBP_E_NOT_ACTIVE;
    if (!is_open_) detail::drop_parked();
    return status;
  }

  bool is_open_ = true;
};

}  // namespace ubp

#endif
