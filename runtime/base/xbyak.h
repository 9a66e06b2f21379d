// Xbyak, without what it brings for messages of its own: <iostream>, and that std::locale, a megabyte, and relocations
// for every process to work off. Nor does it get memory of its own.
#pragma once

#ifndef NDEBUG
#define NDEBUG
#define UBP_HAS_ASSERT
#endif
#define XBYAK_DONT_USE_MMAP_ALLOCATOR
#include <xbyak/xbyak.h>
#ifdef UBP_HAS_ASSERT
#undef NDEBUG
#undef UBP_HAS_ASSERT
#endif
