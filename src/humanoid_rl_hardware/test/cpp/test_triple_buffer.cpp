#include <gtest/gtest.h>

#include "humanoid_rl_hardware/triple_buffer.hpp"

namespace humanoid_rl_hardware {
namespace {

TEST(TripleBuffer, HasNothingToReadAtFirst) {
  TripleBuffer<int> buffer;
  int value = 7;
  EXPECT_FALSE(buffer.read(value));
  EXPECT_EQ(value, 7);
  EXPECT_EQ(buffer.front(), 0);
}

TEST(TripleBuffer, GivesTheNewestValueOnce) {
  TripleBuffer<int> buffer;
  int value = 0;
  for (int i = 1; i < 10; ++i) buffer.write(i);
  EXPECT_TRUE(buffer.read(value));
  EXPECT_EQ(value, 9);
  EXPECT_FALSE(buffer.read(value));
  buffer.write(10);
  EXPECT_TRUE(buffer.read(value));
  EXPECT_EQ(value, 10);
}

TEST(TripleBuffer, FrontStaysWhileTheProducerGoesOn) {
  TripleBuffer<int> buffer;
  buffer.write(1);
  ASSERT_TRUE(buffer.update());
  const int& front = buffer.front();
  for (int i = 2; i < 10; ++i) {
    buffer.back() = i;
    EXPECT_EQ(front, 1);
    buffer.publish();
    EXPECT_EQ(front, 1);
  }
  EXPECT_TRUE(buffer.update());
  EXPECT_EQ(buffer.front(), 9);
}

TEST(TripleBuffer, WhatIsNotPublishedIsNotRead) {
  TripleBuffer<int> buffer;
  buffer.back() = 5;
  EXPECT_FALSE(buffer.update());
  EXPECT_EQ(buffer.front(), 0);
}

}  // namespace
}  // namespace humanoid_rl_hardware
