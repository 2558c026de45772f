// The replay: which steps are drawn, and their records.

#pragma once

#include <cstdint>
#include <vector>

#include "products.h"

namespace {

constexpr int64_t AHEAD = 16;        // records whose memory is asked for before it is needed,
constexpr int64_t SHORT = 1 << 12;   // if they have so few bytes: of longer ones the processor finds out by itself
constexpr int64_t SHARED = 1 << 18;  // bytes from which on threads copy together

// Part of what a batch is made of: of each of its steps at the places `first` to `first + count` the record
// `now`, and, unless null, the one `later`.
struct Part {
    const char* stored;
    char *now, *later;
    int64_t record_bytes, first, count;
};

void fetch(const char* from, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 4 * LINE) __builtin_prefetch(from + at);
}

}  // namespace

extern "C" {

// The parts of several batches, from the positions [batches, steps] of their steps in a ring of records, of which
// so many have been written. Returns 0, and copies nothing, if there is no record at a position, or none after it
// where one is wanted.
int replay_gather(int count, const Part* parts, int64_t batches, int64_t steps, const int64_t* positions,
                  int64_t records, int64_t written) {
    const auto after = [&](int64_t position) { return position + 1 == records ? 0 : position + 1; };
    int64_t bytes = 0;
    bool later = false;
    for (int i = 0; i < count; i++) {
        bytes += batches * parts[i].count * parts[i].record_bytes;
        later = later || parts[i].later;
    }
    for (int64_t i = 0; i < batches * steps; i++) {
        if (positions[i] < 0 || positions[i] >= written) return 0;
        if (later && after(positions[i]) >= written) return 0;
    }
#pragma omp parallel if (bytes > SHARED)
    for (int i = 0; i < count; i++) {
        const Part& part = parts[i];
        const int64_t size = part.record_bytes, total = batches * part.count;
        const auto position = [&](int64_t row) {
            return positions[row / part.count * steps + part.first + row % part.count];
        };
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < total; row++) {
            if (size <= SHORT && row + AHEAD < total)
                fetch(part.stored + position(row + AHEAD) * size, part.later ? 2 * size : size);
            const int64_t here = position(row);
            std::memcpy(part.now + row * size, part.stored + here * size, size);
            if (part.later) std::memcpy(part.later + row * size, part.stored + after(here) * size, size);
        }
    }
    return 1;
}

// Which episode, of those that begin at the transitions `begin`, each transition belongs to, and which step of
// it it is.
void replay_find(int64_t episodes, const int64_t* begin, int64_t count, const int64_t* transitions, int64_t* episode,
                 int64_t* step) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t* found = begin;
        for (int64_t left = episodes; left > 1;) {
            const int64_t half = left / 2;
            found += found[half] <= transitions[i] ? half : 0;
            left -= half;
        }
        episode[i] = found - begin;
        step[i] = transitions[i] - *found;
    }
}

// Distinct steps of each episode, all orders of them as probable, from uniform numbers in [0, 1)
// [episodes, size]. Of episodes with fewer steps they are independent.
void replay_distinct(int64_t episodes, int64_t size, const int64_t* length, const double* uniform, int64_t* steps) {
    // The first steps of a shuffle. Between calls there is the step i at each place i.
    thread_local std::vector<int64_t> places;
    for (int64_t row = 0; row < episodes; row++, uniform += size, steps += size) {
        const int64_t all = length[row];
        if (all < size) {
            for (int64_t i = 0; i < size; i++) steps[i] = uniform[i] * all;
            continue;
        }
        while (static_cast<int64_t>(places.size()) < all) places.push_back(places.size());
        std::vector<int64_t> others(size);
        for (int64_t i = 0; i < size; i++) {
            others[i] = i + static_cast<int64_t>(uniform[i] * (all - i));
            std::swap(places[i], places[others[i]]);
            steps[i] = places[i];
        }
        for (int64_t i = size - 1; i >= 0; i--) std::swap(places[i], places[others[i]]);
    }
}

}  // extern "C"
