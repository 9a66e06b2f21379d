// Offsets inside the one Context that the assembly and the C++ of insn_diff share. Plain macros: read by
// both.
#pragma once

#define DIFF_XSAVE_IN 0     /* 4096 bytes, XSAVE standard format */
#define DIFF_XSAVE_OUT 4096 /* 4096 bytes */
#define DIFF_GPR_IN 8192    /* 16 words, hardware order, then the IRETQ frame */
#define DIFF_RIP_IN 8320
#define DIFF_CS_IN 8328
#define DIFF_FLAGS_IN 8336
#define DIFF_RSP_IN 8344
#define DIFF_SS_IN 8352
#define DIFF_FS_IN 8360
#define DIFF_GS_IN 8368
#define DIFF_GPR_OUT 8376 /* 16 words */
#define DIFF_FLAGS_OUT 8504
#define DIFF_FS_OUT 8512
#define DIFF_GS_OUT 8520
#define DIFF_SELECTORS_OUT 8528 /* ds, es, fs, gs: 4 words */
#define DIFF_WHERE 8560         /* 0 next, 1 target, 2 signal */
#define DIFF_SIGNAL 8568
#define DIFF_INFO 8576
#define DIFF_UCONTEXT 8584
#define DIFF_HOME_RSP 8592
#define DIFF_HOME_FS 8600
#define DIFF_HOME_GS 8608
#define DIFF_INSIDE 8616
