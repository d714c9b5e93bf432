/* A guest that prints clocks and random numbers, sleeps for ten seconds, and prints them again. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static long long began;

static void look(const char *when) {
  unsigned long long random = 0;
  getentropy(&random, sizeof random);
  printf("%s %lld %lld %016llx\n", when, nanoseconds(CLOCK_REALTIME),
         nanoseconds(CLOCK_MONOTONIC) - began, random);
}

int main(void) {
  began = nanoseconds(CLOCK_MONOTONIC);
  look("before");
  sleep(10);
  look("after");
  volatile unsigned long long sum = 0;
  for (unsigned n = 0; n < 1000000; n++) sum += n;
  look("worked");
  return 0;
}
