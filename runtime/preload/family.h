// The process that was started with UBP in its environment, the first, and those that it leads to: forked ones, and
// with UBP_FOLLOW=exec, or where the first has nothing of what is to be probed, those that are executed.
//
// What all have to say in the same words the first says at its end, once: they count it in a page that all share. And
// what they print goes where the first one's standard error goes, or nowhere: theirs may be a pipe whose reader
// computes with what comes.
//
// UBP_FIRST tells executed ones: the first's process id, and which of its descriptors are its standard error (a
// duplicate of it, and which file that is) and the page. They open them through /proc. Where they cannot, each speaks
// for itself.
//
// Where the first one's standard error is a regular file, members write behind the page, and the first appends that at
// its end.
//
// Context: load time and exit. Async-signal-safe: all but join_family() and first_of_family(). Thread-safe: yes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ubp::runtime {

// At load. told: the value of UBP_FIRST, or null. Makes this process the first, or a member.
void join_family(const char* told);

// The value of UBP_FIRST for what is executed. shares: makes it possible for them to open the page.
std::string first_of_family();

// Whether this process was executed by a member, and not only forked; whether it is the first.
bool was_executed();
bool is_first_of_family();

// The process that writes its files under their very names, the others adding their ids. claim: this one, unless there
// is one.
std::uint32_t files_owner(bool claim);

// What members have to say. unmatched: the program lacks a module that is to be probed; near: it has that, and lacks
// what is to be probed in it. unwritten: its report could not be written.
enum class Note : std::uint8_t { kUnmatched, kNear, kUnwritten };

// Counts it, and keeps the first one's text. False: it is not for the first to say, or it has ended: the caller says
// it.
bool note_in_family(Note note, std::string_view text);

// A member is about to execute a program that is not followed; how many have.
void count_unfollowed();
std::uint32_t unfollowed();

// At the first's end: what members have printed that could not go straight to its standard error; empty elsewhere.
std::string mail_of_family();

// At the first's end: what has been noted, a line each; none elsewhere, and where there is nothing to say.
std::vector<std::string> told_by_family();

}  // namespace ubp::runtime
