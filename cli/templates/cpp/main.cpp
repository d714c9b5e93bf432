// The workload {{name}}: one training step on this device's rows.
//
// Least squares by gradient descent, y = w . x + b. It reads models of JSON.

#include <dirent.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

[[noreturn]] void fail(const std::string &why) {
    std::fprintf(stderr, "training failed: %s\n", why.c_str());
    std::exit(1);
}

std::string variable(const char *name) {
    const char *value = std::getenv(name);
    if (!value) fail(std::string("the environment has no variable ") + name);
    return value;
}

std::string read_file(const std::string &path) {
    std::FILE *file = std::fopen(path.c_str(), "rb");
    if (!file) fail("cannot read " + path);
    std::string text;
    char part[4096];
    for (size_t got; (got = std::fread(part, 1, sizeof part, file)) > 0;) text.append(part, got);
    std::fclose(file);
    return text;
}

// The numbers after `"key":` in a flat JSON object: one, or an array of them.
std::vector<double> numbers(const std::string &json, const std::string &key) {
    std::vector<double> values;
    size_t at = json.find('"' + key + '"');
    if (at == std::string::npos) return values;
    at = json.find(':', at);
    if (at == std::string::npos) return values;
    const char *text = json.c_str() + at + 1;
    text += std::strspn(text, " \n");
    bool array = *text == '[';
    if (array) text++;
    while (true) {
        char *end;
        double value = std::strtod(text, &end);
        if (end == text) break;
        values.push_back(value);
        text = end + std::strspn(end, ", \n");
        if (!array || *text == ']') break;
    }
    return values;
}

double number(const std::string &json, const char *key, double otherwise) {
    auto values = numbers(json, key);
    return values.empty() ? otherwise : values[0];
}

using Row = std::vector<double>;

std::vector<Row> read_rows(const std::string &dir, size_t width) {
    std::vector<std::string> names;
    DIR *open = opendir(dir.c_str());
    if (!open) fail("cannot read " + dir);
    while (const dirent *entry = readdir(open)) {
        std::string name = entry->d_name;
        if (name.size() > 4 && name.substr(name.size() - 4) == ".csv") names.push_back(name);
    }
    closedir(open);
    std::sort(names.begin(), names.end());
    std::vector<Row> rows;
    for (const auto &name : names) {
        std::string text = read_file(dir + "/" + name);
        for (size_t from = 0, to; from < text.size(); from = to + 1) {
            to = std::min(text.find('\n', from), text.size());
            std::string line = text.substr(from, to - from);
            if (line.find_first_not_of(" \r") == std::string::npos) continue;
            Row row;
            char *end;
            for (const char *at = line.c_str();; at = end + 1) {
                row.push_back(std::strtod(at, &end));
                if (end == at || !std::isfinite(row.back())) fail(name + ": not a row: " + line);
                if (*end != ',') break;
            }
            if (row.size() != width) fail(name + ": a row does not fit the model: " + line);
            rows.push_back(row);
        }
    }
    if (rows.empty()) fail("no rows to train on in " + dir);
    return rows;
}

}  // namespace

int main() {
    std::string round = variable("ROUND_ID"), base = variable("MODEL_URI");
    const char *given = std::getenv("HYPERPARAMS");
    std::string settings = given ? given : "{}", model = read_file(variable("MODEL_PATH"));
    double lr = number(settings, "lr", 0.1), epochs = number(settings, "epochs", 1);
    if (model.empty() || model[0] != '{') fail("this workload reads models of JSON");
    std::vector<double> w = numbers(model, "w");
    double b = number(model, "b", 0), loss = 0;
    if (w.empty()) fail("the base model has no tensor w");
    auto rows = read_rows(variable("DATA_DIR"), w.size() + 1);

    for (int epoch = 0; epoch < static_cast<int>(epochs); epoch++) {
        loss = 0;
        for (const Row &row : rows) {
            double error = b - row.back();
            for (size_t i = 0; i < w.size(); i++) error += w[i] * row[i];
            for (size_t i = 0; i < w.size(); i++) w[i] -= lr * error * row[i];
            b -= lr * error;
            loss += 0.5 * error * error / static_cast<double>(rows.size());
        }
    }
    if (!std::isfinite(loss)) fail("training diverged; lower lr");

    std::printf("{\"round_id\":\"%s\",\"base_model_uri\":\"%s\",\"num_samples\":%zu,", round.c_str(),
                base.c_str(), rows.size());
    std::printf("\"metrics\":{\"loss\":%.17g},\"update\":{\"w\":[", loss);
    for (size_t i = 0; i < w.size(); i++) std::printf("%s%.17g", i ? "," : "", w[i]);
    std::printf("],\"b\":%.17g}}\n", b);
}
