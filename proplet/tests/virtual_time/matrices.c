/* A guest that multiplies matrices: loops over floats. */
#include <stdio.h>
#include <stdlib.h>

#define N 96
static double a[N][N], b[N][N], c[N][N];

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 1;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) a[i][j] = i + 1.0 / (j + 1), b[i][j] = j - 1.0 / (i + 1);
  for (int round = 0; round < rounds; round++) {
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        double sum = 0;
        for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
      }
    a[round % N][0] = c[0][round % N] / (1 + c[0][0] * c[0][0]);
  }
  printf("%.17g\n", a[0][0] + c[N - 1][N - 1]);
  return 0;
}
