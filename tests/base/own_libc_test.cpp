// libubp's own string functions against libc's: every size and every alignment that their ways differ in, and nothing
// beside what is asked for is written. The file under test is compiled with its names changed (tests/meson.build).
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

extern "C" {
void* own_memmove(void* to, const void* from, std::size_t size);
void* own_memcpy(void* to, const void* from, std::size_t size);
void* own_memset(void* to, int value, std::size_t size);
int own_memcmp(const void* a, const void* b, std::size_t size);
void* own_memchr(const void* memory, int value, std::size_t size);
void* own_memmem(const void* memory, std::size_t size, const void* wanted, std::size_t wanted_size);
std::size_t own_strlen(const char* text);
std::size_t own_strnlen(const char* text, std::size_t most);
int own_strcmp(const char* a, const char* b);
int own_strncmp(const char* a, const char* b, std::size_t most);
}

namespace {

int sign(int value) { return (value > 0) - (value < 0); }

std::vector<unsigned char> random_bytes(std::size_t size) {
  std::mt19937 random(7);
  std::vector<unsigned char> bytes(size);
  for (auto& byte : bytes) byte = static_cast<unsigned char>(random());
  return bytes;
}

std::vector<std::size_t> sizes() {
  std::vector<std::size_t> all;
  for (std::size_t size = 0; size <= 80; ++size) all.push_back(size);
  for (const std::size_t size : {127, 128, 129, 255, 256, 500, 511, 512, 513, 600, 1023, 1024, 1100, 2000})
    all.push_back(size);
  return all;
}

}  // namespace

TEST_CASE("own libc: memmove and memcpy, overlapping either way, far and near") {
  const std::vector<unsigned char> original = random_bytes(8192);
  for (const std::size_t size : sizes()) {
    for (const std::size_t distance : {0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 511, 512, 513, 3000}) {
      for (const bool forward : {false, true}) {
        const std::size_t from = 3000 + (forward ? 0 : distance), to = 3000 + (forward ? distance : 0);
        std::vector<unsigned char> expected = original, bytes = original;
        std::memmove(expected.data() + to, expected.data() + from, size);
        const void* const result = own_memmove(bytes.data() + to, bytes.data() + from, size);
        const bool is_same = bytes == expected && result == bytes.data() + to;
        CHECK_MESSAGE(is_same, "size ", size, " distance ", distance, " forward ", forward);
      }
    }
    std::vector<unsigned char> expected(2100, 1), bytes(2100, 1);
    std::memcpy(expected.data() + 5, original.data() + 3, size);
    CHECK(own_memcpy(bytes.data() + 5, original.data() + 3, size) == bytes.data() + 5);
    CHECK(bytes == expected);
  }
}

TEST_CASE("own libc: memset") {
  for (const std::size_t size : sizes()) {
    std::vector<unsigned char> expected(2100, 1), bytes(2100, 1);
    std::memset(expected.data() + 3, 0x1a5, size);
    CHECK(own_memset(bytes.data() + 3, 0x1a5, size) == bytes.data() + 3);
    CHECK(bytes == expected);
  }
}

TEST_CASE("own libc: memcmp and memchr find the first byte that counts") {
  const std::vector<unsigned char> bytes(200, 'a');
  for (const std::size_t size : sizes()) {
    if (size > bytes.size()) continue;
    CHECK(own_memcmp(bytes.data(), bytes.data(), size) == 0);
    CHECK(own_memchr(bytes.data(), 'b', size) == nullptr);
    for (std::size_t at = 0; at < bytes.size(); ++at) {
      std::vector<unsigned char> other = bytes;
      other[at] = at % 2 == 0 ? 'b' : 0xff;
      if (at + 1 < other.size()) other[at + 1] = 'b';
      const bool is_same =
          sign(own_memcmp(bytes.data(), other.data(), size)) == sign(std::memcmp(bytes.data(), other.data(), size)) &&
          sign(own_memcmp(other.data(), bytes.data(), size)) == sign(std::memcmp(other.data(), bytes.data(), size)) &&
          own_memchr(other.data(), 'b', size) == std::memchr(other.data(), 'b', size);
      CHECK_MESSAGE(is_same, "size ", size, " at ", at);
    }
  }
}

TEST_CASE("own libc: memmem") {
  std::vector<unsigned char> bytes = random_bytes(300);
  for (auto& byte : bytes) byte &= 1;  // many beginnings, few ends
  for (const std::size_t size : {0, 1, 3, 16, 19, 100, 300}) {
    for (const std::size_t wanted : {0, 1, 2, 4, 9, 17, 40}) {
      for (std::size_t from = 0; from + wanted <= bytes.size(); from += 3) {
        const void* const found = own_memmem(bytes.data(), size, bytes.data() + from, wanted);
        CHECK(found == ::memmem(bytes.data(), size, bytes.data() + from, wanted));
      }
    }
  }
}

TEST_CASE("own libc: strings") {
  for (std::size_t offset = 0; offset < 32; ++offset) {
    for (std::size_t length = 0; length < 70; ++length) {
      std::string text = std::string(offset, '\0') + std::string(length, 'x');
      CHECK(own_strlen(text.c_str() + offset) == length);
      CHECK(own_strnlen(text.c_str() + offset, 40) == std::min<std::size_t>(length, 40));
    }
  }
  const std::array<const char*, 6> texts = {"", "a", "ab", "abc", "abd", "\xff"};
  for (const char* a : texts) {
    for (const char* b : texts) {
      CHECK(sign(own_strcmp(a, b)) == sign(std::strcmp(a, b)));
      for (std::size_t most = 0; most < 5; ++most)
        CHECK(sign(own_strncmp(a, b, most)) == sign(std::strncmp(a, b, most)));
    }
  }
}
