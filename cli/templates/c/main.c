// The workload {{name}}: one training step on this device's rows.
//
// Least squares by gradient descent, y = w . x + b. It reads models of JSON.

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FEATURES_MAX 1024

// Numbers that grow.
struct list {
    double *at;
    size_t len, room;
};

static void fail(const char *what, const char *value) {
    fprintf(stderr, "training failed: %s %s\n", what, value);
    exit(1);
}

static void push(struct list *list, double value) {
    if (list->len == list->room) {
        list->room = list->room ? 2 * list->room : 256;
        list->at = realloc(list->at, list->room * sizeof *list->at);
        if (!list->at) fail("out of memory for", "rows");
    }
    list->at[list->len++] = value;
}

static const char *variable(const char *name) {
    const char *value = getenv(name);
    if (!value) fail("the environment has no variable", name);
    return value;
}

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot read", path);
    size_t len = 0, room = 4096;
    char *text = malloc(room + 1);
    for (size_t got; text && (got = fread(text + len, 1, room - len, file)) > 0;) {
        len += got;
        if (len == room) text = realloc(text, (room *= 2) + 1);
    }
    if (!text || ferror(file)) fail("cannot read", path);
    fclose(file);
    text[len] = 0;
    return text;
}

// The place after `"key":` in a flat JSON object, or NULL.
static const char *find(const char *json, const char *key) {
    size_t len = strlen(key);
    for (const char *at = json; (at = strchr(at, '"')); at++) {
        if (strncmp(at + 1, key, len) || at[len + 1] != '"') continue;
        at += len + 2;
        while (*at == ' ' || *at == '\n') at++;
        if (*at == ':') return at + 1;
    }
    return NULL;
}

static double number(const char *json, const char *key, double otherwise) {
    const char *at = find(json, key);
    if (!at) return otherwise;
    char *end;
    double value = strtod(at, &end);
    if (end == at || !isfinite(value)) fail("not a number:", key);
    return value;
}

// Reads `[1.0, 2.0]`.
static struct list array(const char *json, const char *key) {
    struct list values = {0};
    const char *at = find(json, key);
    if (!at) fail("the base model has no tensor", key);
    at += strspn(at, " \n");
    if (*at++ != '[') fail("not an array:", key);
    for (char *end; *at && *at != ']'; at = end + strspn(end, ", \n")) {
        push(&values, strtod(at, &end));
        if (end == at) fail("not a number in", key);
    }
    return values;
}

// Appends the rows of one CSV file.
static void read_rows(const char *path, size_t width, struct list *rows) {
    char *text = read_file(path);
    for (char *line = strtok(text, "\r\n"); line; line = strtok(NULL, "\r\n")) {
        size_t fields = 0;
        for (char *at = line, *end;; at = end + 1) {
            double value = strtod(at, &end);
            if (end == at || !isfinite(value)) fail("not a row of numbers:", line);
            push(rows, value);
            fields++;
            if (*end != ',') break;
        }
        if (fields != width) fail("a row does not fit the model:", line);
    }
    free(text);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_csv(const struct dirent *entry) {
    const char *dot = strrchr(entry->d_name, '.');
    return dot && !strcmp(dot, ".csv");
}

int main(void) {
    const char *round = variable("ROUND_ID"), *base = variable("MODEL_URI");
    const char *dir = variable("DATA_DIR");
    const char *settings = getenv("HYPERPARAMS") ? getenv("HYPERPARAMS") : "{}";
    double lr = number(settings, "lr", 0.1), epochs = number(settings, "epochs", 1);
    char *model = read_file(variable("MODEL_PATH"));
    if (model[0] != '{') fail("this workload reads models of JSON, not", "safetensors");
    struct list w = array(model, "w"), rows = {0};
    double b = number(model, "b", 0), loss = 0;
    if (w.len == 0 || w.len > FEATURES_MAX) fail("no model of this size:", "w");

    struct dirent **files;
    int count = scandir(dir, &files, is_csv, by_name);
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]->d_name);
        read_rows(path, w.len + 1, &rows);
    }
    size_t n = rows.len / (w.len + 1);
    if (n == 0) fail("no rows to train on in", dir);

    for (int epoch = 0; epoch < (int)epochs; epoch++) {
        loss = 0;
        for (size_t row = 0; row < n; row++) {
            const double *x = rows.at + row * (w.len + 1);
            double error = b - x[w.len];
            for (size_t i = 0; i < w.len; i++) error += w.at[i] * x[i];
            for (size_t i = 0; i < w.len; i++) w.at[i] -= lr * error * x[i];
            b -= lr * error;
            loss += 0.5 * error * error / (double)n;
        }
    }
    if (!isfinite(loss)) fail("training diverged; lower", "lr");

    printf("{\"round_id\":\"%s\",\"base_model_uri\":\"%s\",\"num_samples\":%zu,", round, base, n);
    printf("\"metrics\":{\"loss\":%.17g},\"update\":{\"w\":[", loss);
    for (size_t i = 0; i < w.len; i++) printf("%s%.17g", i ? "," : "", w.at[i]);
    printf("],\"b\":%.17g}}\n", b);
    return 0;
}
