/* A participant that looks at its clocks and dice, sleeps for ten seconds, looks again, and then submits an update. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long long microseconds(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

int main(void) {
  unsigned random[2];
  long long wall = microseconds(CLOCK_REALTIME), began = microseconds(CLOCK_MONOTONIC);
  getentropy(&random[0], sizeof random[0]);
  sleep(10);
  getentropy(&random[1], sizeof random[1]);
  printf("{\"round_id\":\"%s\",\"proplet_id\":\"%s\",\"base_model_uri\":\"%s\",\"num_samples\":1,"
         "\"metrics\":{\"loss\":%lld,\"wall_s\":%lld},\"update\":{\"w\":[%u,%u,%lld],\"b\":0.5}}\n",
         getenv("ROUND_ID"), getenv("PROPLET_ID"), getenv("MODEL_URI"),
         (microseconds(CLOCK_MONOTONIC) - began) / 1000, wall / 1000000, random[0] % 1000, random[1] % 1000,
         wall % 1000000);
  return 0;
}
