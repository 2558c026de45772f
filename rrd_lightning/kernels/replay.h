// The replay: which steps are drawn, and their records.

#pragma once

#include <cstdint>
#include <vector>

#include "products.h"

namespace {

constexpr long AHEAD = 16;        // records whose memory is asked for before it is needed,
constexpr long SHORT = 1 << 12;   // if they have so few bytes: of longer ones the processor finds out by itself
constexpr long SHARED = 1 << 18;  // bytes from which on threads copy together

// Part of what a batch is made of: of each of its steps at the places `first` to `first + count` the record
// `now`, and, unless null, the one `later`.
struct Part {
    const char* stored;
    char *now, *later;
    long record_bytes, first, count;
};

void fetch(const char* from, long bytes) {
    for (long at = 0; at < bytes; at += 4 * LINE) __builtin_prefetch(from + at);
}

}  // namespace

extern "C" {

// The parts of several batches, from the positions [batches, steps] of their steps in a ring of records.
void replay_gather(int count, const Part* parts, long batches, long steps, const int64_t* positions, long records) {
    long bytes = 0;
    for (int i = 0; i < count; i++) bytes += batches * parts[i].count * parts[i].record_bytes;
#pragma omp parallel if (bytes > SHARED)
    for (int i = 0; i < count; i++) {
        const Part& part = parts[i];
        const long size = part.record_bytes, total = batches * part.count;
        const auto position = [&](long row) {
            return positions[row / part.count * steps + part.first + row % part.count];
        };
#pragma omp for schedule(static) nowait
        for (long row = 0; row < total; row++) {
            if (size <= SHORT && row + AHEAD < total)
                fetch(part.stored + position(row + AHEAD) * size, part.later ? 2 * size : size);
            const long here = position(row), next = here + 1 == records ? 0 : here + 1;
            std::memcpy(part.now + row * size, part.stored + here * size, size);
            if (part.later) std::memcpy(part.later + row * size, part.stored + next * size, size);
        }
    }
}

// Which episode, of those that begin at the transitions `begin`, each transition belongs to, and which step of
// it it is.
void replay_find(long episodes, const int64_t* begin, long count, const int64_t* transitions, int64_t* episode,
                 int64_t* step) {
    for (long i = 0; i < count; i++) {
        const int64_t* found = begin;
        for (long left = episodes; left > 1;) {
            const long half = left / 2;
            found += found[half] <= transitions[i] ? half : 0;
            left -= half;
        }
        episode[i] = found - begin;
        step[i] = transitions[i] - *found;
    }
}

// Distinct steps of each episode, all orders of them as probable, from uniform numbers in [0, 1)
// [episodes, size]. Of episodes with fewer steps they are independent.
void replay_distinct(long episodes, long size, const int64_t* length, const double* uniform, int64_t* steps) {
    // The first steps of a shuffle. Between calls there is the step i at each place i.
    thread_local std::vector<int64_t> places;
    for (long row = 0; row < episodes; row++, uniform += size, steps += size) {
        const long all = length[row];
        if (all < size) {
            for (long i = 0; i < size; i++) steps[i] = uniform[i] * all;
            continue;
        }
        while (static_cast<long>(places.size()) < all) places.push_back(places.size());
        std::vector<long> others(size);
        for (long i = 0; i < size; i++) {
            others[i] = i + static_cast<long>(uniform[i] * (all - i));
            std::swap(places[i], places[others[i]]);
            steps[i] = places[i];
        }
        for (long i = size - 1; i >= 0; i--) std::swap(places[i], places[others[i]]);
    }
}

}  // extern "C"
