// Programs by the language's grammar: bytes choose which rule is taken, so that most of them compile and run.
//
// Names have one kind each ($n and @n numbers, $s texts, ...), so that what is written fits together. Where the bytes
// are over, the first alternative is taken, which ends every rule.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "fuzz.h"

namespace ubp::fuzz {

class Grammar {
 public:
  Grammar(const std::uint8_t* bytes, std::size_t size) : bytes_(bytes), size_(size), more_(bytes, size) {}

  std::string program() {
    std::string text;
    if (chance(2))
      text += pick({"config = { max_strlen = 64 } ", "config = { max_map_keys = 9; str_trunc_trailer = \"\" } "});
    text += kDefinitions;
    if (chance(2)) text += pick({"let @k = hash(5); ", "let @k = lruhash(3); ", "let @c = percpulruhash(2); "});
    text +=
        "macro twice(x) { x + x } macro put(@m, key, $v) { @m[key] = $v; } macro size(T) { sizeof(T*) + sizeof(T[2]) } ";
    // Every map has its type, whatever follows.
    text +=
        "begin { @n = (int64)1; @m = (int64)2; @k[(int64)1] = (int64)1; @w[\"a\", (int64)1] = ((int64)1, \"one\"); "
        "@c[(int64)1] = count(); @s = sum(1); @x[\"a\"] = max(1); @g = avg(1); @e[(int64)1] = stats(1); "
        "@h[\"a\"] = hist(1, 2); @l = lhist(1, -5, 20, 3); @q = tseries(1, 1s, 5, \"sum\"); } ";
    for (int blocks = 1 + below(3); blocks > 0; --blocks) {
      is_hit_ = false;
      switch (below(6)) {
        case 0:
        case 1:
        case 2: text += "begin "; break;
        case 3: text += "end "; break;
        case 4: text += "interval:ms:1 "; break;
        default: is_hit_ = true; text += "uprobe:a:f, u:b:g*" + (chance(2) ? " /" + number(2) + "/ " : " ");
      }
      text += block(
          3,
          "let $n = (int64)1; let $m = (int64)2; let $s = \"text\"; let $t = ((int64)1, \"one\"); $p = (struct S *)" +
              address() + "; ");
    }
    return mutated(text);
  }

 private:
  static constexpr std::string_view kDefinitions =
      "struct S { int a; char b[4]; struct S *n; unsigned c : 3; long d : 40; union { short e; int f[2]; }; } "
      "enum E { A, B = 3, C } ";

  unsigned below(unsigned limit) {
    return at_ < size_ ? bytes_[at_++] % limit : static_cast<unsigned>(more_.below(limit));
  }
  bool chance(unsigned of) { return below(of) == of - 1; }
  std::string pick(std::initializer_list<std::string_view> these) {
    return std::string(these.begin()[below(static_cast<unsigned>(these.size()))]);
  }

  std::string block(int depth, std::string_view first = "") {
    std::string text = "{ " + std::string(first);
    for (unsigned count = below(5); count > 0; --count) text += statement(depth - 1) + "; ";
    return text + "} ";
  }

  std::string statement(int depth) {
    if (depth <= 0) return pick({"@n++", "$n += 1", "@c[1] = count()", "print(1)"});
    switch (below(24)) {
      case 0:
        return pick({"@n", "@m", "$n", "$m"}) + pick({" = ", " += ", " -= ", " *= ", " ^= ", " <<= "}) + integer(depth);
      case 1: return "@k[" + integer(depth) + "] = " + integer(depth);
      case 2: return "@w[" + text(depth) + ", " + integer(depth) + "] = " + tuple(depth);
      case 3: return "@c[" + integer(depth) + "] = count()";
      case 4: return "@s = sum(" + number(depth) + ")";
      case 5: return "@x[" + text(depth) + "] = max(" + number(depth) + ")";
      case 6: return "@g = avg(" + number(depth) + ")";
      case 7: return "@e[" + integer(depth) + "] = stats(" + number(depth) + ")";
      case 8: return "@h[" + text(depth) + "] = hist(" + number(depth) + ", 2)";
      case 9: return "@l = lhist(" + number(depth) + ", -5, 20, 3)";
      case 10: return "@q = tseries(" + number(depth) + ", 1s, 5, \"sum\")";
      case 11:
        return "printf(\"%d %s %x %5d|%-8s %c\\n\", " + number(depth) + ", " + text(depth) + ", " + number(depth) +
               ", " + number(depth) + ", " + tuple(depth) + ", " + number(depth) + ")";
      case 12: return "print(" + any(depth) + ")";
      case 13: return "print(" + pick({"@k", "@c, 2", "@e", "@h", "@s, 0, 3"}) + ")";
      case 14:
        return pick({"clear(@k)", "zero(@c)", "delete(@k, 3)", "clear(@h)", "zero(@e)", "delete(@n)", "clear(@w)"});
      case 15: return "if (" + number(depth) + ") " + block(depth) + (chance(2) ? "else " + block(depth) : "");
      case 16: return "for ($i : 0.." + pick({"3", "$n % 7", "-1"}) + ") " + block(depth, loop_head());
      case 17:
        return "for ($kv : " + pick({"@k", "@c", "@w"}) + ") " + block(depth, chance(2) ? "print($kv); " : loop_head());
      case 18: return "unroll(" + pick({"2", "5"}) + ") " + block(depth, loop_head());
      case 19: return "let $z = 0; while ($z++ < 4) " + block(depth, loop_head());
      case 20: return "$s = " + text(depth);
      case 21: return "put(@k, " + integer(depth) + ", $n)";
      case 22: return "if (find(@k, " + integer(depth) + ", $m)) " + block(depth);
      default:
        return pick({"exit()", "return", "time(\"%H\")", "errorf(\"%d\", 1)", "$p = $p->n", "assert(1, \"no\")",
                     "_ = len(@k)"});
    }
  }

  std::string loop_head() {
    return chance(4) ? pick({"if ($n > 5) { break; } ", "if ($n & 1) { $n++; continue; } "}) : "";
  }

  std::string integer(int depth) { return "(int64)(" + number(depth) + ")"; }

  std::string number(int depth) {
    if (depth <= 0)
      return pick({"1", "0", "-1", "$n", "@n", "255", "0x7fffffffffffffff", "18446744073709551615", "B", "1e3", "2ms"});
    switch (below(22)) {
      case 0: return number(0);
      case 1:
      case 2:
      case 3:
        return "(" + number(depth - 1) +
               pick({" + ", " - ", " * ", " / ", " % ", " & ", " | ", " ^ ", " << ", " >> ", " < ", " == ", " && ",
                     " || ", " >= ", " != "}) +
               number(depth - 1) + ")";
      case 4: return pick({"-", "~", "!"}) + number(depth - 1);
      case 5: return pick({"(int8)", "(uint16)", "(bool)", "(int64)", "(typeof($n))", "(enum E)"}) + number(depth - 1);
      case 6: return "(" + number(depth - 1) + " ? " + integer(depth - 1) + " : " + integer(depth - 1) + ")";
      case 7: return pick({"$n++", "--$m", "@m++", "--@n", "$n--"});
      case 8: return "@k[" + integer(depth - 1) + "]";
      case 9: return pick({"pid", "tid", "nsecs", "rand", "cpu", "elapsed", "uid", "ncpus", "usermode", "@s", "@g"});
      case 10: return pick({"strlen(", "strcap("}) + text(depth - 1) + ")";
      case 11: return pick({"strncmp(", "memcmp("}) + text(depth - 1) + ", " + text(depth - 1) + ", 3)";
      case 12: return pick({"strstr(", "strcontains("}) + text(depth - 1) + ", " + text(depth - 1) + ")";
      case 13: return tuple(depth - 1) + ".0";
      case 14:
        return pick(
            {"$p->a", "$p->n->c", "$p->d", "$p.e", "$p->f[1]", "*(uint32*)$p", "$p->b[2]", "(*$p).a", "$p == 0"});
      case 15: return "(" + text(depth - 1) + pick({" == ", " != "}) + text(depth - 1) + ")";
      case 16:
        return pick({"sizeof(struct S)", "offsetof(struct S, n)", "sizeof($t)", "size(typeof(int16))", "len(@w)",
                     "sizeof(@w)"});
      case 17: return "has_key(@k, " + integer(depth - 1) + ")";
      case 18: return "twice(" + number(depth - 1) + ")";
      case 19: return "{ $r = " + number(depth - 1) + "; $r + 1 }";
      case 20: return "bswap(" + pick({"(uint32)", ""}) + number(depth - 1) + ")";
      default:
        return is_hit_ ? pick({"arg0", "arg5", "reg(\"sp\")", "reg(\"ip\")"})
                       : "((int8[4])(int32)" + number(depth - 1) + ")[2]";
    }
  }

  std::string text(int depth) {
    if (depth <= 0) return pick({"\"a\"", "\"\"", "$s", "\"some longer text\"", "\"\\x01\\\"\""});
    switch (below(9)) {
      case 0: return text(0);
      case 1: return "str(" + address() + pick({")", ", 5)", ", $n)"});
      case 2: return "str_concat(" + text(depth - 1) + ", " + text(depth - 1) + ")";
      case 3: return pick({"comm", "strerror(2)", "signal_name(9)", "probe", "probetype"});
      case 4: return "(" + number(depth - 1) + " ? " + text(depth - 1) + " : " + text(depth - 1) + ")";
      case 5: return tuple(depth - 1) + ".1";
      case 6: return pick({"$p->b", "config().str_trunc_trailer"});
      default: return is_hit_ ? pick({"func", "str(arg0)"}) : "$s";
    }
  }

  std::string tuple(int depth) {
    if (depth <= 0 || !chance(2)) return "(" + integer(depth - 1) + ", " + text(depth - 1) + ")";
    return pick({"$t", "@w[\"a\", (int64)1]"});
  }

  std::string any(int depth) {
    switch (below(10)) {
      case 0: return number(depth);
      case 1: return text(depth);
      case 2: return tuple(depth);
      case 3: return "(a = " + number(depth) + ", b = " + text(depth) + ")";
      case 4: return "buf(" + pick({address() + ", 9", "\"text\"", "$s, 3"}) + ")";
      case 5:
        return pick({"ntop(0x0100007f)", "pton(\"::1\")", "ntop(pton(\"127.0.0.1\"))", "macaddr((int8[6])\"abcde\")"});
      case 6: return "strftime(\"%H:%f\", " + number(depth) + ")";
      case 7: return pick({"*$p", "$p", "(1, (2, (3, \"4\")), B)", "&$n", "username", "(int8[])\"abc\"", "$p->n"});
      case 8: return "(" + any(0) + ", " + any(0) + ")";
      default: return "@c[" + integer(depth) + "]";
    }
  }

  std::string address() { return pick({"0", "16", "0x7fffffffffff", "-8", "0xdead000000000000"}); }

  // Sometimes a word is left out, said twice, or in another one's place.
  std::string mutated(const std::string& text) {
    if (!chance(4)) return text;
    std::string all = text;
    for (unsigned times = 1 + below(3); times > 0 && !all.empty(); --times) {
      const std::size_t at = (below(256) * 256U + below(256)) % all.size();
      const std::size_t end = std::min(all.find(' ', at), all.size() - 1) + 1;
      switch (below(3)) {
        case 0: all.erase(at, end - at); break;
        case 1: all.insert(at, all.substr(at, end - at)); break;
        default:
          all.insert(at, pick({"{", "}", "(", ")", "@", "$", "\"", "/", "1", "[", "]", "*", ";", "typeof(", "let "}));
      }
    }
    return all;
  }

  const std::uint8_t* bytes_;
  std::size_t size_, at_ = 0;
  Numbers more_;
  bool is_hit_ = false;
};

}  // namespace ubp::fuzz
