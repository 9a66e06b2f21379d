// What a consumer's code touches, where all of it can be seen.
//
// Context: normal, under the ApiLock (api/api_lock.h). Async-signal-safe: no.
#pragma once

#include "runtime/include/ubp.h"

namespace ubp::runtime {

// Whether the consumer touches no x87, MMX, vector or mask register nor a control word of theirs, as if it had said
// UBP_PROBE_NO_FP. True only when every instruction that it can reach is known: its own and those of what it calls,
// directly or through words that nobody can write any more (RELRO). All of it must lie in modules' read-only text.
// False: it does, or nobody knows. The answer holds while its module stays loaded, as the consumer does.
bool is_general_code(ubp_consumer consumer);

}  // namespace ubp::runtime
