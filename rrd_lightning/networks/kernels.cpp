// What `Kernels` calls: perceptrons forward and backward, and the squashed policy.
//
// Matrices are stored row by row. Their products are small, 256 x 256 x 256, and what they need is rarely in
// the nearest cache: an update touches some 8 MB. A library's product copies its factors before it begins.
// Here they are read where they lie, while a tile of the result stays in registers; what comes next is
// fetched meanwhile, and what no other thread needs stays in a few rows that are used again and again.
// Each number is summed in one order, however many threads there are.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8;
#elif defined(__AVX__)
constexpr int LANES = 8, ROWS = 6;  // 12 sums and what they are made of fill 16 registers
#else
constexpr int LANES = 4, ROWS = 6;
#endif
constexpr int LINE = 16;   // numbers that are fetched together
constexpr int BLOCK = 32;  // rows or columns that a thread takes at once

typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef float Stored __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

Lanes load(const float* from, int count) {
    if (count >= LANES) return *reinterpret_cast<const Stored*>(from);
    Lanes values = {};
    std::memcpy(&values, from, sizeof(float) * count);
    return values;
}

void store(float* to, Lanes values, int count) {
    if (count >= LANES) *reinterpret_cast<Stored*>(to) = values;
    else std::memcpy(to, &values, sizeof(float) * count);
}

// The left factor: its number (i, k) is at[i * row + k * column], so that it may be transposed.
struct Left {
    const float* at;
    long row, column;

    Left below(long rows) const { return {at + rows * row, row, column}; }
};

// The right factor: its number (k, j) is at[k * row + j].
struct Right {
    const float* at;
    long row;
};

// Where the sums go, and what becomes of them before.
struct Result {
    float* at;
    long row;
    const float* bias = nullptr;  // added to each row
    const float* gate = nullptr;  // of the result's shape: zero where it is not positive
    bool relu = false;

    Result moved(long rows, long columns) const {
        Result part = *this;
        part.at += rows * row + columns;
        if (bias) part.bias += columns;
        if (gate) part.gate += rows * row + columns;
        return part;
    }

    void take(Lanes sum, long place, int column, int count) const {
        const Lanes zero = {};
        if (bias) sum += load(bias + column, count);
        if (relu) sum = sum < zero ? zero : sum;  // and not-a-number stays
        if (gate) sum = load(gate + place, count) <= zero ? zero : sum;
        store(at + place, sum, count);
    }
};

template <int HEIGHT, int WIDTH>
inline void tile(int depth, Left left, Right right, const Result& result, int columns) {
    for (int i = 0; i < HEIGHT; i++)
        for (int v = 0; v < WIDTH; v++) __builtin_prefetch(result.at + i * result.row + v * LANES, 1);
    Lanes sums[HEIGHT][WIDTH] = {};
    const auto add = [&](long k, const auto& across) {
#pragma GCC unroll 8
        for (int i = 0; i < HEIGHT; i++) {
            const float down = left.at[i * left.row + k * left.column];
#pragma GCC unroll 2
            for (int v = 0; v < WIDTH; v++) sums[i][v] += down * across[v];
        }
    };
    // Where there are fewer columns than lanes, a row is read into the next ones, but for the last rows.
    const long beyond = std::max(0, WIDTH * LANES - columns);
    const long whole = std::max(0L, depth - (beyond + right.row - 1) / right.row);
    for (long k = 0; k < whole; k++) {
        Lanes across[WIDTH];
        for (int v = 0; v < WIDTH; v++) across[v] = load(right.at + k * right.row + v * LANES, LANES);
        if (left.column != 1) __builtin_prefetch(left.at + k * left.column + LINE);
        add(k, across);
    }
    for (long k = whole; k < depth; k++) {
        const Lanes across[WIDTH] = {load(right.at + k * right.row, columns)};
        add(k, across);
    }
    for (int i = 0; i < HEIGHT; i++)
        for (int v = 0; v < WIDTH; v++)
            result.take(sums[i][v], i * result.row + v * LANES, v * LANES, columns - v * LANES);
}

template <int HEIGHT, int WIDTH>
void strip(int rows, int depth, Left left, Right right, Result result, int columns) {
    int i = 0;
    for (; i + HEIGHT <= rows; i += HEIGHT)
        tile<HEIGHT, WIDTH>(depth, left.below(i), right, result.moved(i, 0), columns);
    if constexpr (HEIGHT > 1)
        if (i < rows)
            strip<HEIGHT / 2, WIDTH>(rows - i, depth, left.below(i), right, result.moved(i, 0), columns);
}

// One column, of a left factor that is not transposed: lanes beside each other, and summed in the end.
void column(int rows, int depth, Left left, Right right, Result result) {
    for (int i = 0; i < rows; i++) {
        const float* across = left.at + i * left.row;
        Lanes sums = {};
        int k = 0;
        for (; k + LANES <= depth; k += LANES) sums += load(across + k, LANES) * load(right.at + k, LANES);
        sums += load(across + k, depth - k) * load(right.at + k, depth - k);
        Lanes sum = {};
        for (int lane = 0; lane < LANES; lane++) sum[0] += sums[lane];
        result.take(sum, i * result.row, 0, 1);
    }
}

// result = left [rows, depth] right [depth, columns]
void product(int rows, int columns, int depth, Left left, Right right, Result result) {
    if (columns == 1 && right.row == 1 && left.column == 1) return column(rows, depth, left, right, result);
    int j = 0;
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
        strip<ROWS, 2>(rows, depth, left, {right.at + j, right.row}, result.moved(0, j), 2 * LANES);
    for (; j < columns; j += LANES)
        strip<ROWS, 1>(rows, depth, left, {right.at + j, right.row}, result.moved(0, j),
                       std::min(LANES, columns - j));
}

// Calls work(member, first, count) for blocks of each member's rows, or columns, shared out to the threads: the
// same ones to the same thread each time, which has them in its cache. Nobody waits for the others.
template <class Work>
void share(int members, int total, const Work& work) {
    const int blocks = (total + BLOCK - 1) / BLOCK;
#pragma omp for collapse(2) schedule(static) nowait
    for (long member = 0; member < members; member++)
        for (int block = 0; block < blocks; block++)
            work(member, block * BLOCK, std::min(BLOCK, total - block * BLOCK));
}

// One or several perceptrons of one shape.
struct Network {
    int members, layers;
    const int* sizes;
    const float* vector;

    // Where a layer's weights of all members begin in the vector; their biases follow.
    long beginning(int layer) const {
        long place = 0;
        for (int l = 0; l < layer; l++) place += members * (sizes[l] + 1L) * sizes[l + 1];
        return place;
    }
    long weights(int layer, long member) const {
        return beginning(layer) + member * sizes[layer] * sizes[layer + 1];
    }
    long biases(int layer, long member) const {
        return beginning(layer) + (static_cast<long>(members) * sizes[layer] + member) * sizes[layer + 1];
    }
    int widest() const { return *std::max_element(sizes, sizes + layers + 1); }
};

// room [columns, rows] = weights [rows, columns], of all members of a layer.
void transpose(const Network& network, int layer, float* room) {
    const long rows = network.sizes[layer], columns = network.sizes[layer + 1];
    share(network.members, rows, [&](long member, int first, int count) {
        const float* from = network.vector + network.weights(layer, member);
        float* to = room + network.weights(layer, member);
        for (long j = 0; j < columns; j++)
            for (long i = first; i < first + count; i++) to[j * rows + i] = from[i * columns + j];
    });
}

// Numbers that are read again by the same thread only, and soon.
float* local(int which, long size) {
    thread_local std::vector<float> rooms[3];
    if (static_cast<long>(rooms[which].size()) < size) rooms[which].resize(size);
    return rooms[which].data();
}

}  // namespace

extern "C" {

// outputs[l] [members, rows, sizes[l + 1]] of each layer, from inputs [rows, sizes[0]]. Where it is null they
// are not kept.
void perceptron_forward(const Network* given, int rows, const float* inputs, float* const* outputs) {
    const Network network = *given;
    const int* sizes = network.sizes;
#pragma omp parallel if (rows > BLOCK)
    share(network.members, rows, [&](long member, long first, int count) {
        const float* seen = inputs + first * sizes[0];
        for (int l = 0; l < network.layers; l++) {
            const long in = sizes[l], out = sizes[l + 1], row = member * rows + first;
            float* made = outputs[l] ? outputs[l] + row * out : local(l % 2, BLOCK * network.widest());
            product(count, out, in, {seen, in, 1}, {network.vector + network.weights(l, member), out},
                    {made, out, network.vector + network.biases(l, member), nullptr, l + 1 < network.layers});
            seen = made;
        }
    });
}

// found, the gradient of the vector, from that of the outputs. What the hidden layers gave is overwritten by
// its gradient. `room` has the vector's length.
void perceptron_backward(const Network* given, int rows, const float* inputs, float* const* outputs,
                         const float* gradient, float* found, float* room) {
    static const float one = 1.0f;
    const Network network = *given;
    const int* sizes = network.sizes;
#pragma omp parallel if (rows > BLOCK)
    {
        for (int l = 1; l < network.layers; l++) transpose(network, l, room);
        for (int l = network.layers - 1; l >= 0; l--) {
            const long in = sizes[l], out = sizes[l + 1];
            const float* above = l + 1 < network.layers ? outputs[l] : gradient;
            share(network.members, std::max(in, out), [&](long member, long first, int count) {
                const float* seen = l ? outputs[l - 1] + member * rows * in : inputs;
                const float* upper = above + member * rows * out;
                float* weights = found + network.weights(l, member);
                if (out == 1)  // then a column is stored as a row is
                    product(1, count, rows, {upper, 0, 1}, {seen + first, in}, {weights + first, in});
                else if (in > out)
                    product(count, out, rows, {seen + first, 1, in}, {upper, out},
                            {weights + first * out, out});
                else
                    product(in, count, rows, {seen, 1, in}, {upper + first, out}, {weights + first, out});
            });
            share(network.members, out, [&](long member, long first, int count) {
                product(1, count, rows, {&one, 0, 0}, {above + member * rows * out + first, out},
                        {found + network.biases(l, member) + first, out});
            });
            if (l == 0) break;
#pragma omp barrier
            share(network.members, rows, [&](long member, long first, int count) {
                const long row = member * rows + first;
                product(count, in, out, {above + row * out, out, 1}, {room + network.weights(l, member), in},
                        {outputs[l - 1] + row * in, in, nullptr, outputs[l - 1] + row * in});
            });
#pragma omp barrier
        }
    }
}

// found [rows, columns] of the inputs from `first` on, summed over members, from the gradient
// [members, rows, sizes[layers]] of the outputs. Rows in which it is zero are left out. `room` has the vector's
// length.
void perceptron_trace(const Network* given, int rows, float* const* outputs, const float* gradient,
                      int first_column, int columns, float* found, float* room) {
    const Network network = *given;
    const int* sizes = network.sizes;
    const int last = network.layers - 1;
#pragma omp parallel if (rows > BLOCK)
    {
        for (int l = 0; l < network.layers; l++) transpose(network, l, room);
#pragma omp barrier
        share(1, rows, [&](long, long first, int count) {
            std::fill_n(found + first * columns, count * static_cast<long>(columns), 0.0f);
            for (long member = 0; member < network.members; member++) {
                const long begin = member * rows + first, out = sizes[last + 1];
                int kept[BLOCK], many = 0;
                for (int i = 0; i < count; i++) {
                    const float* values = gradient + (begin + i) * out;
                    if (std::any_of(values, values + out, [](float one) { return one != 0; })) kept[many++] = i;
                }
                // The rows that are left, one after another: of what is given, and of what a layer gave.
                const auto together = [&](const float* from, long width, int where) {
                    float* to = local(where, BLOCK * network.widest());
                    for (int i = 0; i < many; i++)
                        std::copy_n(from + (begin + kept[i]) * width, width, to + i * width);
                    return to;
                };
                const float* upper = together(gradient, out, last % 2);
                for (int l = last; l > 0; l--) {
                    float* lower = together(outputs[l - 1], sizes[l], (l - 1) % 2);
                    product(many, sizes[l], sizes[l + 1], {upper, sizes[l + 1], 1},
                            {room + network.weights(l, member), sizes[l]}, {lower, sizes[l], nullptr, lower});
                    upper = lower;
                }
                float* left = local(2, BLOCK * network.widest());
                product(many, columns, sizes[1], {upper, sizes[1], 1},
                        {room + network.weights(0, member) + first_column, sizes[0]}, {left, columns});
                for (int i = 0; i < many; i++)
                    for (int j = 0; j < columns; j++)
                        found[(first + kept[i]) * columns + j] += left[i * columns + j];
            }
        });
    }
}

// Of each draw u = mean + exp(log_std) noise: tanh u, exp(log_std) noise, and the log-density, summed over
// actions. The means and then the log_stds stand in a row of outputs; the latter are held between low and high.
void squashed_draw(int rows, int actions, float low, float high, const float* outputs, const float* noise,
                   float* action, float* spread, float* log_prob) {
    const float constant = actions * (2 * std::log(2.0) + 0.5 * std::log(2 * std::acos(-1.0)));
#pragma omp parallel for if (rows > BLOCK)
    for (long row = 0; row < rows; row++) {
        const float* mean = outputs + 2 * row * actions;
        float sum = 0;
        for (long i = 0, at = row * actions; i < actions; i++, at++) {
            const float raw = mean[actions + i], log_std = raw < low ? low : raw > high ? high : raw;
            spread[at] = std::exp(log_std) * noise[at];
            const float u = mean[i] + spread[at], fall = std::expm1(-2 * std::abs(u));  // exp(-2 |u|) - 1
            action[at] = std::copysign(-fall / (2 + fall), u);
            const float softplus = std::max(-2 * u, 0.0f) + std::log1p(1 + fall);  // log(1 + exp(-2 u))
            sum += 2 * (u + softplus) - log_std - 0.5f * noise[at] * noise[at];
        }
        log_prob[row] = sum - constant;
    }
}

// found [rows, 2 * actions], the gradient of the outputs, from those of the actions and of each log-density.
void squashed_gradient(int rows, int actions, float low, float high, const float* outputs, const float* action,
                       const float* spread, const float* of_action, const float* of_log_prob, float* found) {
    for (long row = 0; row < rows; row++)
        for (long i = 0, at = row * actions; i < actions; i++, at++) {
            const long place = 2 * row * actions + i;
            const float raw = outputs[place + actions];
            const float of_mean = of_action[at] + action[at] * (2 * *of_log_prob - action[at] * of_action[at]);
            found[place] = of_mean;
            found[place + actions] = raw < low || raw > high ? 0.0f : of_mean * spread[at] - *of_log_prob;
        }
}

}  // extern "C"
