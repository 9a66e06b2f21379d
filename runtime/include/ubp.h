/* UBP: probes on any instruction of your own process.
 *
 *   #include <ubp.h>                                   cc program.c $(pkg-config --cflags --libs ubp)
 *
 *   ubp_probe* probe;
 *   if (ubp_init(NULL) == UBP_OK && ubp_register("libc:malloc", NULL, &probe, NULL) == UBP_OK) {
 *     ...
 *     ubp_probe_stats stats = {.struct_size = sizeof stats};
 *     ubp_probe_read(probe, &stats);                   stats.hits: exactly the calls of malloc since then
 *   }
 *
 * Every function returns a ubp_status: UBP_OK (0) or a negative code, after which nothing has changed unless its text
 * says so. Structures begin with their size, which the caller sets to sizeof: later versions append members, and older
 * callers go on. What a structure does not set is zero, and zero always means the default.
 *
 * Unless its text says otherwise, every function: is thread-safe; is not async-signal-safe, though a call from a signal
 * handler that interrupted no other call of its thread works; returns UBP_E_IN_CONSUMER inside a consumer,
 * UBP_E_NOT_ACTIVE before ubp_init() and after ubp_shutdown(), and UBP_E_WRONG_PROCESS in a child made by vfork() or
 * clone(CLONE_VM). A child made by fork() has its parent's probes, with counts that start at zero, and may go on as its
 * parent.
 *
 * This header is C99 and C++98. ubp.hpp beside it wraps it for C++17.
 */
#ifndef UBP_H
#define UBP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif
#ifdef __cplusplus
extern "C" {
#endif

#define UBP_VERSION_MAJOR 0
#define UBP_VERSION_MINOR 1
#define UBP_VERSION_PATCH 0

/* What a function came to. The numbers are stable. */
typedef enum ubp_status {
  UBP_OK = 0,
  UBP_E_INVALID = -1,        /* an argument is NULL, out of range, or has unknown flags */
  UBP_E_STRUCT_SIZE = -2,    /* struct_size is smaller than any version of the structure */
  UBP_E_NOT_ACTIVE = -3,     /* not between ubp_init() and ubp_shutdown() */
  UBP_E_SPEC = -4,           /* the specification cannot be read */
  UBP_E_NOT_FOUND = -5,      /* no such module, function, address or map */
  UBP_E_REFUSED = -6,        /* found, but no instruction there can be probed */
  UBP_E_NO_MEMORY = -7,      /* memory was denied */
  UBP_E_NO_ROOM = -8,        /* more probepoints or consumers than there is room for (ubp_config) */
  UBP_E_STALE = -9,          /* the probe was unregistered, or is none */
  UBP_E_IN_CONSUMER = -10,   /* called inside a consumer, which may only use ubp_context_*() */
  UBP_E_BUSY = -11,          /* called by a signal handler that interrupted another call of its thread */
  UBP_E_WRONG_PROCESS = -12, /* called by a process that borrows its parent's memory */
  UBP_E_TRANSACTION = -13,   /* no transaction is open, one is open already, or an earlier call in it failed */
  UBP_E_SYSTEM = -14,        /* the kernel denied something; ubp_refusal.message says what */
  UBP_E_OTHER_RUNTIME = -15  /* another copy of UBP owns this process */
} ubp_status;

/* A registered probe: one call of ubp_register*(), of one probepoint or a million. A handle is never reused: after
 * ubp_unregister() it is stale for ever, and using it is an error, not a crash. */
typedef struct ubp_probe ubp_probe;

/* What a consumer sees of a hit. Valid until the consumer returns, in its thread. */
typedef struct ubp_context ubp_context;

/* How displaced instructions get their slots; see tests/bench/README.md, "The question of 2010". */
typedef enum ubp_policy {
  UBP_POLICY_DEFAULT = 0,
  UBP_POLICY_THREAD = 1,     /* each thread's own cache of slots, refilled (the default) */
  UBP_POLICY_PROBEPOINT = 2, /* one write-once slot per probepoint */
  UBP_POLICY_STEAL = 3,      /* one pool for the process, with stealing */
  UBP_POLICY_ADAPTIVE = 4    /* the thread's cache, and write-once slots for what is refilled too often */
} ubp_policy;

/* Which probepoints are reached by a jump, without the kernel; see runtime/README.md, "The jump tier". */
typedef enum ubp_optimize {
  UBP_OPTIMIZE_DEFAULT = 0,
  UBP_OPTIMIZE_AUTO = 1,   /* function entries (the default) */
  UBP_OPTIMIZE_ALWAYS = 2, /* every probepoint that can have one */
  UBP_OPTIMIZE_NEVER = 3   /* none: every hit is a trap */
} ubp_optimize;

enum {
  /* A thread that blocks SIGTRAP for good (it waits in sigwait(), or a sanitizer made it) does not stop the first
   * registration. Such a thread must meet no probe: the kernel ends a program that executes an int3 while SIGTRAP is
   * blocked. */
  UBP_CONFIG_LEAVE_BLOCKED_THREADS = 1u << 0
};

typedef struct ubp_config {
  size_t struct_size;
  uint32_t slots;           /* per thread: 1..4096; 0: 64 */
  uint32_t policy;          /* ubp_policy */
  uint32_t flags;           /* UBP_CONFIG_* */
  uint32_t max_probepoints; /* distinct addresses ever probed: 1..16777216; 0: 1048576. Address space only until used */
  uint32_t optimize;        /* ubp_optimize */
  uint32_t reserved;        /* 0 */
} ubp_config;

/* What a registration found wrong. A caller that passes one sets struct_size; the rest is written on errors. */
typedef struct ubp_refusal {
  size_t struct_size;
  int32_t status;        /* the ubp_status */
  uint32_t line, column; /* in the specification, from 1; 0: not from a specification */
  uint32_t is_exact;     /* 1: the item meant this very address; 0: a glob or insn: came upon it */
  uint64_t address;      /* run-time address; 0: none is known */
  uint64_t elf_address;  /* as nm and objdump print it for the module; 0: none is known */
  char module[64];       /* "libc.so.6"; empty: none is known */
  char symbol[128];      /* "malloc+0x4"; empty: none is known. Both are cut where they are longer */
  char message[512];     /* one line: what is wrong; a refusal's reason begins with a code, "mid-instruction: ..." */
  char hint[256];        /* what to do: "did you mean 'malloc'?"; may be empty */
} ubp_refusal;

/* A consumer: called once for every hit, in the thread that made it, before the instruction. context: the hit. data: as
 * registered. It runs on a stack of UBP's own of at least 32 KiB; errno and vector registers are saved around it;
 * signals wait until it returns. It may call what it likes but this interface's other functions and longjmp out; probes
 * that it hits itself count as missed. */
typedef void (*ubp_consumer)(const ubp_context* context, void* data);

enum {
  UBP_PROBE_DISABLED = 1u << 0, /* starts disabled */
  UBP_PROBE_MODIFY = 1u << 1,   /* the consumer may use ubp_context_set_register() */
  UBP_PROBE_NO_FP =
      1u << 2,                 /* the consumer and what it calls touch no x87, MMX or vector register (compiled with
                                  -mgeneral-regs-only): a hit without a trap costs 5 ns instead of 40 and more. So it is
                                  without this where libubp sees all of the code, and that it is so. They reach no
                                  cancellation point either: without this, and UBP_PROBE_SSE_ONLY, none of theirs is one */
  UBP_PROBE_PENDING = 1u << 3, /* also in modules that are loaded later, as [missing=pending] on every item */
  UBP_PROBE_IGNORE_MISSING = 1u << 4, /* items that are not found are left out; ubp_probe_refusal() lists them */
  UBP_PROBE_SSE_ONLY = 1u << 5,       /* of those registers it touches xmm0 to xmm15 alone, by no AVX instruction */
  UBP_PROBE_NO_REGISTERS = 1u << 6,   /* the consumer reads no register, flags or argument of the hit: they read as 0 */
  UBP_PROBE_RECORD = 1u << 7,         /* no consumer: each hit is recorded with its time, for ubp_drain() */
  UBP_PROBE_OVERRIDE = 1u << 8,       /* the consumer may use ubp_context_return(): only at functions' entries */
  UBP_PROBE_BACKTRACE = 1u << 9,      /* the consumer may use ubp_context_backtrace() */
  UBP_PROBE_NET = 1u << 10            /* of "call:": times are without what the probes of it have taken meanwhile */
};

/* One hit of a probe with UBP_PROBE_RECORD. */
typedef struct ubp_record {
  uint64_t
      time_ns; /* on CLOCK_MONOTONIC's scale, from the processor's timestamp counter: to order what happened, and for
                  distances; it may be off by what that counter drifts against the clock since the last ubp_drain() */
  uint64_t address; /* run-time address of the probed instruction */
  ubp_probe* probe;
  uint32_t thread_id; /* the kernel's, as gettid() */
  uint32_t reserved;
} ubp_record;

/* data: as passed to ubp_drain(). The record is valid until it returns. */
typedef void (*ubp_record_visitor)(const ubp_record* record, void* data);

typedef struct ubp_options {
  size_t struct_size;
  uint32_t flags;        /* UBP_PROBE_* */
  uint32_t reserved;     /* 0 */
  ubp_consumer consumer; /* NULL: hits are only counted */
  void* data;            /* passed to the consumer; must outlive the probe */
} ubp_options;

/* hits = recorded + filtered + missed + dropped, exactly. */
typedef struct ubp_probe_stats {
  size_t struct_size;
  uint64_t hits;
  uint64_t recorded;    /* counted, and its consumer run, or its record written */
  uint64_t filtered;    /* a predicate said no */
  uint64_t missed;      /* made by a consumer, whose own hits run none; or where %fs does not lead to libc's storage */
  uint64_t dropped;     /* no room for the record */
  uint64_t probepoints; /* addresses it is at */
  uint64_t probes;      /* items and addresses: one address named twice counts twice */
  uint64_t refused;     /* of what it asked for; ubp_probe_refusal() tells each */
  uint64_t pending;     /* items that wait for modules that are loaded later */
  uint32_t enabled;     /* 1 or 0 */
  uint32_t reserved;
} ubp_probe_stats;

typedef struct ubp_stats {
  size_t struct_size;
  uint64_t probes;                                    /* registered now, and each block of their programs */
  uint64_t probepoints;                               /* patched now */
  uint64_t hits, recorded, filtered, missed, dropped; /* of all probes ever registered, those of UBP_PROBES included */
  uint64_t slot_hits, misses, refills, evictions;     /* of the slot caches */
  uint64_t area_bytes;                                /* slot memory in use */
  uint64_t threads_seen;                              /* threads that hit a probe */
  uint64_t synchronisations;                          /* times that all threads were made to see patched text */
  uint64_t optimised_probepoints, optimised_hits;     /* reached by a jump now; hits without a trap since the start */
} ubp_stats;

/* ---- The runtime ------------------------------------------------------------------------------------------------- */

/* Makes the interface usable. Cheap: the first registration does the work, so that a program that registers nothing
 * stays as it was. Best called before threads are started: later, the first registration holds every thread for a
 * moment, and fails with UBP_E_SYSTEM where one blocks SIGTRAP for good. config: NULL: defaults. Read once: where the
 * runtime runs already (an earlier ubp_init(), or UBP_PROBES in the environment with the library preloaded) its own
 * settings stay. Returns UBP_OK also when called again; UBP_E_STRUCT_SIZE; UBP_E_INVALID; UBP_E_IN_CONSUMER;
 * UBP_E_WRONG_PROCESS; UBP_E_OTHER_RUNTIME. Context: any thread, constructors before main included. */
ubp_status ubp_init(const ubp_config* config);

/* Unregisters every probe of this interface (those of UBP_PROBES stay), waits for running consumers, and puts the text
 * back byte for byte. Idempotent; ubp_init() may follow. The handler of SIGTRAP stays: a trap may be on its way.
 * Returns UBP_OK also when not active; UBP_E_SYSTEM: the text could not be written, and the probes stay;
 * UBP_E_IN_CONSUMER, UBP_E_BUSY, UBP_E_WRONG_PROCESS. */
ubp_status ubp_shutdown(void);

/* 1 between ubp_init() and ubp_shutdown(), or while UBP_PROBES has probes armed; else 0. Async-signal-safe. */
int ubp_is_active(void);

/* "0.1.0", as the library was built; the header's own are UBP_VERSION_*. Async-signal-safe, works always. */
const char* ubp_version(void);

/* One line for a status, without full stop: "found, but no instruction there can be probed". Never NULL.
 * Async-signal-safe, works always. */
const char* ubp_status_string(ubp_status status);

/* ---- Probes --------------------------------------------------------------------------------------------------------
 */

/* Registers what a specification names, in the language of UBP_PROBES (ubp-probes(7)): bare targets, programs, or both:
 * "libc:malloc; app:parse*", "libc:malloc /arg0 > 1000/ { @big = count(); }".
 * spec: NUL-terminated. options: NULL: count, enabled. probe: receives the handle; NULL: the probe stays to the end.
 * refusal: NULL, or what the first mistake was; of a program its line and column, and a hint.
 * Of returns ("ur:libc:read") and calls ("call:libc:read") a hit is a return: see ubp_context_retval() and
 * ubp_context_call(). ubp_context_ip() is the function's entry. They cannot be recorded (UBP_PROBE_RECORD:
 * UBP_E_INVALID), and no call can be ended by them (UBP_PROBE_OVERRIDE: UBP_E_REFUSED).
 * When it returns, every call that begins later hits. A glob of which some matches are refused succeeds; see
 * ubp_probe_stats.refused.
 *
 * Of programs: each registration has maps of its own (ubp_map_read()), which a forked child finds empty. A consumer and
 * UBP_PROBE_RECORD are for the bare targets; where there is none, UBP_E_INVALID. Blocks of begin run in this call (in a
 * transaction: in its commit), before anything is armed; those of end in the call that unregisters the probe, behind
 * its last hit, and not where the process ends before. exit() lets no block but end run any more: hits count as
 * filtered. What is printed: ubp_drain_text(). Warnings, and what went wrong at run time when the probe goes, are
 * written to standard error. Not in programs: system(), and parameters ($1).
 *
 * Returns UBP_OK, UBP_E_SPEC, UBP_E_NOT_FOUND, UBP_E_REFUSED, UBP_E_NO_MEMORY, UBP_E_NO_ROOM, UBP_E_SYSTEM,
 * UBP_E_INVALID, UBP_E_STRUCT_SIZE, UBP_E_TRANSACTION, or the common ones. */
ubp_status ubp_register(const char* spec, const ubp_options* options, ubp_probe** probe, ubp_refusal* refusal);

/* The same for one instruction at a run-time address, such as that of a function. It must lie in a loaded module's code
 * and be reached by decoding from its function's start. */
ubp_status ubp_register_address(const void* address, const ubp_options* options, ubp_probe** probe,
                                ubp_refusal* refusal);

/* The same for a function by name. module: its file's name, or that without version or suffix ("libc"); NULL: the
 * executable. symbol: as the symbol table has it, or demangled; no glob. offset: bytes from its entry. */
ubp_status ubp_register_symbol(const char* module, const char* symbol, uint64_t offset, const ubp_options* options,
                               ubp_probe** probe, ubp_refusal* refusal);

/* Takes a probe away and its handle with it. Returns only after its last running consumer has: its data may be freed
 * then. A hit on its way to a counting probe meanwhile may or may not be counted. In a transaction: at its commit.
 * Returns UBP_OK, UBP_E_STALE, UBP_E_SYSTEM (the text could not be written, and the probe stays), or the common ones.
 */
ubp_status ubp_unregister(ubp_probe* probe);

/* Hits count, and run the consumer, while the probe is enabled. Both return UBP_OK also when it is so already, and else
 * as ubp_unregister(), with UBP_E_NO_MEMORY; ubp_disable() also waits for running consumers. In a transaction: at its
 * commit. */
ubp_status ubp_enable(ubp_probe* probe);
ubp_status ubp_disable(ubp_probe* probe);

/* Counts of one probe since it was registered, while it was enabled, over all threads; of a program those of its blocks
 * together. Hits of calls that have returned are in it. Returns UBP_OK, UBP_E_STALE, UBP_E_INVALID, UBP_E_STRUCT_SIZE,
 * or the common ones. */
ubp_status ubp_probe_read(ubp_probe* probe, ubp_probe_stats* stats);

/* The index-th of what the probe asked for and did not get: first items not found, then instructions refused.
 * Returns UBP_OK, UBP_E_NOT_FOUND past the last one, UBP_E_STALE, UBP_E_INVALID, UBP_E_STRUCT_SIZE, or the common ones.
 */
ubp_status ubp_probe_refusal(ubp_probe* probe, size_t index, ubp_refusal* refusal);

/* Counts of the whole process. Returns as ubp_probe_read(). */
ubp_status ubp_read(ubp_stats* stats);

/* Takes the records of every thread and calls visit(record, data) for each, by time. A thread holds 65536 records;
 * those that find no room until somebody drains are dropped, and counted as such. The records of a probe that is
 * unregistered are gone. visit: not NULL; may call this interface; memory for all records is taken before the first
 * call. Returns UBP_OK, also when there were none; UBP_E_INVALID, UBP_E_NO_MEMORY, or the common ones. */
ubp_status ubp_drain(ubp_record_visitor visit, void* data);

/* ---- Programs
 * ------------------------------------------------------------------------------------------------------- */

typedef enum ubp_value_kind {
  UBP_VALUE_SIGNED = 1,
  UBP_VALUE_UNSIGNED = 2, /* also pointers and truth values */
  UBP_VALUE_TEXT = 3,     /* a string; what exists for printing, as it is printed: times, addresses, users */
  UBP_VALUE_BYTES = 4     /* of a struct, an array or buf(), as they lay in memory */
} ubp_value_kind;

typedef struct ubp_value {
  uint32_t kind; /* ubp_value_kind */
  uint32_t reserved;
  int64_t number;   /* UBP_VALUE_UNSIGNED: cast it to uint64_t. Of texts and bytes 0 */
  const char* text; /* never NULL; NUL-terminated, the NUL not counted */
  size_t length;    /* bytes of text */
} ubp_value;

/* What a map's value is. */
typedef enum ubp_aggregate {
  UBP_AGGREGATE_NONE = 0, /* what was assigned last */
  UBP_AGGREGATE_COUNT = 1,
  UBP_AGGREGATE_SUM = 2,
  UBP_AGGREGATE_MIN = 3,
  UBP_AGGREGATE_MAX = 4,
  UBP_AGGREGATE_AVG = 5,
  UBP_AGGREGATE_STATS = 6,
  UBP_AGGREGATE_HIST = 7,
  UBP_AGGREGATE_LHIST = 8
} ubp_aggregate;

/* How many values of a histogram were from the first to the last of these, both included. Bounds that do not fit are
 * the nearest that do. */
typedef struct ubp_bucket {
  int64_t first, last;
  uint64_t count;
} ubp_bucket;

/* A key of a map, with its value. Several keys, or one that is a tuple, stand one behind the other; so do the elements
 * of a value that is a tuple. Tuples within tuples are laid flat. */
typedef struct ubp_map_entry {
  size_t struct_size;
  uint32_t aggregate; /* ubp_aggregate */
  uint32_t reserved;
  const ubp_value* keys;
  size_t key_count;        /* 0: the map has none, and one value */
  const ubp_value* values; /* of an aggregation one number: that of count, sum, min or max; of avg and stats the
                              average; of a histogram how many values it has */
  size_t value_count;
  uint64_t count;            /* min, max, avg, stats, histograms: how many values there were */
  int64_t total;             /* avg, stats: their sum */
  const ubp_bucket* buckets; /* of a histogram, ascending: those that are not empty */
  size_t bucket_count;
} ubp_map_entry;

/* data: as passed to ubp_map_read(). The entry, and what it points to, is valid until it returns. */
typedef void (*ubp_map_visitor)(const ubp_map_entry* entry, void* data);

/* Calls visit(entry, data) for each key of a map of the probe's program, in the order in which it would be printed: by
 * values, then by keys; for a map without keys once, or not at all where it has no value. name: with its @.
 * Exact for hits of calls that have returned before, such as those of threads that were joined. While others hit: each
 * value is of one moment of this call, but sums and counts of aggregations are added up over the call, and may have
 * more of one thread's hits than of another's; keys that come or go during the call may be there or not. A probe that
 * is disabled stands still, and can be read until it is unregistered. visit: not NULL; may call this interface; memory
 * for all entries is taken before the first call. Returns UBP_OK, also for an empty map; UBP_E_NOT_FOUND: the probe has
 * no program, or that no such map; UBP_E_STALE; UBP_E_INVALID: also for tseries(), which is for printing alone;
 * UBP_E_NO_MEMORY, or the common ones. */
ubp_status ubp_map_read(ubp_probe* probe, const char* name, ubp_map_visitor visit, void* data);

/* The number that a map without keys has, as ubp_map_entry.values says it; 0 where nothing was ever put there.
 * Returns as ubp_map_read(); UBP_E_INVALID: also where the map has keys, or its value is no single number. */
ubp_status ubp_map_number(ubp_probe* probe, const char* name, int64_t* number);

/* data: as passed to ubp_drain_text(). text: length bytes and a NUL, valid until it returns. */
typedef void (*ubp_text_visitor)(const char* text, size_t length, void* data);

/* Takes what a probe's program has printed since the last call, of all threads by time, and calls visit(text, length,
 * data) once with it; not where there is nothing. 64 MiB find room until somebody drains; hits that find none are
 * dropped, and counted as such. What nobody has taken when the probe goes, what end prints included, is written to
 * standard error. visit: not NULL; may call this interface.
 * Returns as ubp_map_read(). */
ubp_status ubp_drain_text(ubp_probe* probe, ubp_text_visitor visit, void* data);

/* Writes the report and the summary as they are now to UBP_OUTPUT and UBP_SUMMARY, where the environment asked for them
 * in files; at exit they are written again. Returns UBP_OK, also when there is nothing to write; UBP_E_SYSTEM: a file
 * could not be written, which has been said on standard error. */
ubp_status ubp_flush(void);

/* ---- Transactions
 * ---------------------------------------------------------------------------------------------------- */

/* From begin to commit, the calling thread's registrations and changes are prepared but not made; commit makes them
 * all, with one synchronisation of the threads, or none. Handles are valid at once. A call that fails dooms its
 * transaction: only its end is left. Other threads are not held up. begin: UBP_OK, UBP_E_TRANSACTION (one is open), or
 * the common ones. commit: UBP_OK; UBP_E_TRANSACTION: none is open, or a call in it failed; UBP_E_SYSTEM. Unless
 * UBP_OK, its registrations are gone and its changes not made. abort: UBP_OK, UBP_E_TRANSACTION. */
ubp_status ubp_transaction_begin(void);
ubp_status ubp_transaction_commit(void);
ubp_status ubp_transaction_abort(void);

/* ---- Inside a consumer
 * ----------------------------------------------------------------------------------------------- */

/* General registers in their encoding's order (SDM volume 2, table 2-2). UBP_RSP is its value before the instruction.
 */
typedef enum ubp_register_id {
  UBP_RAX,
  UBP_RCX,
  UBP_RDX,
  UBP_RBX,
  UBP_RSP,
  UBP_RBP,
  UBP_RSI,
  UBP_RDI,
  UBP_R8,
  UBP_R9,
  UBP_R10,
  UBP_R11,
  UBP_R12,
  UBP_R13,
  UBP_R14,
  UBP_R15
} ubp_register_id;

/* All of these: context: the consumer's; never NULL. Async-signal-safe; cannot fail unless they return a status. */

/* The run-time address of the probed instruction. */
uint64_t ubp_context_ip(const ubp_context* context);
/* A general register before the instruction; 0 for a number that no register has. */
uint64_t ubp_context_register(const ubp_context* context, ubp_register_id id);
/* RFLAGS before the instruction. */
uint64_t ubp_context_flags(const ubp_context* context);
/* The thread's kernel id, as gettid(). */
uint32_t ubp_context_thread_id(const ubp_context* context);
/* The index-th integer or pointer argument, from 0, at a function's entry: rdi, rsi, rdx, rcx, r8, r9, then the stack.
 * Source: System V psABI for x86-64, 3.2.3. Meaningless elsewhere, but where a call returns ("call:"): the first six
 * are those of its entry. */
uint64_t ubp_context_argument(const ubp_context* context, unsigned index);
/* The probe that this consumer was registered with. */
ubp_probe* ubp_context_probe(const ubp_context* context);
/* Changes a general register before the instruction runs. Returns UBP_OK; UBP_E_INVALID: no such register, or UBP_RSP;
 * UBP_E_REFUSED: the probe was registered without UBP_PROBE_MODIFY. */
ubp_status ubp_context_set_register(const ubp_context* context, ubp_register_id id, uint64_t value);
/* Ends the call at whose first instruction the hit is: when all consumers of the hit have run, the function returns to
 * its caller at once, with value in rax and every other register as it is; none of its instructions are executed. The
 * hit counts as any other. value: what the function returns, extended to 64 bits; not for functions that return more
 * than rax holds, such as structures and floating-point numbers. Of several consumers, programs included, the one that
 * was registered first and calls this decides. Returns UBP_OK; UBP_E_REFUSED: the probe was registered without
 * UBP_PROBE_OVERRIDE, or the call is over already. */
ubp_status ubp_context_return(const ubp_context* context, uint64_t value);
/* What the function returns, as rax has it: of one that returns less than 64 bits the others are unspecified; of one
 * that returns more than rax holds, a structure or a floating-point number, it is no part of that. Also with
 * UBP_PROBE_NO_REGISTERS. value: receives it. Returns UBP_OK; UBP_E_INVALID: value is NULL, or the hit is no return:
 * the probe is none of "ur:" or "call:". */
ubp_status ubp_context_retval(const ubp_context* context, uint64_t* value);
/* What is known of a call, where it returns. Of "call:" the hit also has the call's first six arguments as they were at
 * its entry (ubp_context_argument(); rdi, rsi, rdx, rcx, r8 and r9 cannot be set there: UBP_E_REFUSED). Times are by
 * the processor's timestamp counter, to the nanosecond; self_ns + elapsed_ns of the calls that were made in it, by
 * functions that the same registration probes so, is elapsed_ns. A call that is left by longjmp() or an exception is no
 * hit. */
typedef struct ubp_call {
  size_t struct_size;
  uint64_t elapsed_ns; /* from its entry to its return */
  uint64_t self_ns;    /* of that, without the calls of the same registration that were made in it */
  uint64_t depth;      /* calls of the same registration that it was made in; 0: none */
} ubp_call;
/* call: the caller sets struct_size; receives the rest. Returns UBP_OK; UBP_E_INVALID: call is NULL, or the probe is
 * none of "call:"; UBP_E_STRUCT_SIZE. */
ubp_status ubp_context_call(const ubp_context* context, ubp_call* call);
/* Walks the stack: the run-time address of the probed instruction, then the addresses that it and its callers return
 * to, the innermost first, through signal frames; of what a signal interrupted, the instruction that was next. By the
 * modules' call frame information (.eh_frame), and by frame pointers in code without. Takes no lock, allocates nothing,
 * and no memory that cannot be read faults. addresses: room for `limit` of them. Returns how many were written; where a
 * caller cannot be found they end there. 0: `limit` is 0; or the probe was registered without UBP_PROBE_BACKTRACE, or
 * with UBP_PROBE_NO_REGISTERS. */
size_t ubp_context_backtrace(const ubp_context* context, uint64_t* addresses, size_t limit);

#ifdef __cplusplus
}
#endif
#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#endif
