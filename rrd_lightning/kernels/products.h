// Products of small matrices, and how work is shared out to threads.
//
// Matrices are stored row by row. Their products are small, 256 x 256 x 256, and what they need is rarely in
// the nearest cache: an update touches some 8 MB. A library's product copies its factors before it begins.
// Here they are read where they lie, while a tile of the result stays in registers; what comes next is
// fetched meanwhile, and what no other thread needs stays in a few rows that are used again and again.
// Each number is summed in one order, however many threads there are.

#pragma once

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>

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

// Memory of any content that is used again and again.
class Room {
public:
    Room() = default;
    Room(const Room&) = delete;
    ~Room() { std::free(numbers); }

    float* of(long size) {
        if (size > room) {
            std::free(numbers);
            room = (size + LINE - 1) / LINE * LINE;
            numbers = static_cast<float*>(std::aligned_alloc(4 * LINE, sizeof(float) * room));
            if (!numbers) std::abort();
        }
        return numbers;
    }

private:
    float* numbers = nullptr;
    long room = 0;
};

// Numbers that are read again by the same thread only, and soon.
float* local(int which, long size) {
    thread_local Room rooms[3];
    return rooms[which].of(size);
}

// Numbers for all threads, until a call ends. The next call of the same thread gets the same memory, in the
// order in which it takes it, which then is in the caches.
class Scratch {
public:
    float* take(long size) {
        thread_local std::deque<Room> rooms;
        if (taken == rooms.size()) rooms.emplace_back();
        return rooms[taken++].of(size);
    }

private:
    std::size_t taken = 0;
};

}  // namespace
