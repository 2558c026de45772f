// Perceptrons forward and backward.

#pragma once

#include <vector>

#include "products.h"

namespace {

// A perceptron, or an ensemble of independent ones of one shape.
struct Network {
    int members, layers;
    const int* sizes;            // [layers + 1]
    const float* const* weight;  // of each layer [members, inputs, outputs]
    const float* const* bias;    // of each layer [members, outputs]

    long area(int layer) const { return static_cast<long>(sizes[layer]) * sizes[layer + 1]; }
    const float* weights(int layer, long member) const { return weight[layer] + member * area(layer); }
    const float* biases(int layer, long member) const { return bias[layer] + member * sizes[layer + 1]; }
    // Where a member's weights begin in memory that holds those of all layers, one after another.
    long offset(int layer, long member) const {
        long begin = 0;
        for (int l = 0; l < layer; l++) begin += members * area(l);
        return begin + (member ? member * area(layer) : 0);
    }
    long length() const { return offset(layers, 0); }
    int widest() const { return *std::max_element(sizes, sizes + layers + 1); }
};

// The gradient of a network's loss, laid out as the network is.
struct Gradient {
    float* const* weight;
    float* const* bias;
};

// What follows is called by all threads together, and none of it waits for the others at its end.

// outputs[l] [members, rows, sizes[l + 1]] of each layer, from inputs [rows, sizes[0]]. Where it is null they
// are not kept.
void forward(const Network& network, int rows, const float* inputs, float* const* outputs) {
    const int* sizes = network.sizes;
    share(network.members, rows, [&](long member, long first, int count) {
        const float* seen = inputs + first * sizes[0];
        for (int l = 0; l < network.layers; l++) {
            const long in = sizes[l], out = sizes[l + 1], row = member * rows + first;
            float* made = outputs[l] ? outputs[l] + row * out : local(l % 2, BLOCK * network.widest());
            product(count, out, in, {seen, in, 1}, {network.weights(l, member), out},
                    {made, out, network.biases(l, member), nullptr, l + 1 < network.layers});
            seen = made;
        }
    });
}

// The weights of each layer [outputs, inputs], in memory for all of them.
void transpose(const Network& network, float* transposed) {
    for (int l = 0; l < network.layers; l++) {
        const long rows = network.sizes[l], columns = network.sizes[l + 1];
        share(network.members, rows, [&](long member, int first, int count) {
            const float* from = network.weights(l, member);
            float* to = transposed + network.offset(l, member);
            for (long j = 0; j < columns; j++)
                for (long i = first; i < first + count; i++) to[j * rows + i] = from[i * columns + j];
        });
    }
}

// The gradient of the parameters, from that of the outputs. What the hidden layers gave is overwritten by
// its gradient. The weights may still be being transposed.
void backward(const Network& network, int rows, const float* inputs, float* const* outputs, const float* gradient,
              const float* transposed, const Gradient& found) {
    static const float one = 1.0f;
    const int* sizes = network.sizes;
    for (int l = network.layers - 1; l >= 0; l--) {
        const long in = sizes[l], out = sizes[l + 1];
        const float* above = l + 1 < network.layers ? outputs[l] : gradient;
        share(network.members, std::max(in, out), [&](long member, long first, int count) {
            const float* seen = l ? outputs[l - 1] + member * rows * in : inputs;
            const float* upper = above + member * rows * out;
            float* weights = found.weight[l] + member * in * out;
            if (out == 1)  // then a column is stored as a row is
                product(1, count, rows, {upper, 0, 1}, {seen + first, in}, {weights + first, in});
            else if (in > out)
                product(count, out, rows, {seen + first, 1, in}, {upper, out}, {weights + first * out, out});
            else
                product(in, count, rows, {seen, 1, in}, {upper + first, out}, {weights + first, out});
        });
        share(network.members, out, [&](long member, long first, int count) {
            product(1, count, rows, {&one, 0, 0}, {above + member * rows * out + first, out},
                    {found.bias[l] + member * out + first, out});
        });
        if (l == 0) break;
#pragma omp barrier
        share(network.members, rows, [&](long member, long first, int count) {
            const long row = member * rows + first;
            product(count, in, out, {above + row * out, out, 1}, {transposed + network.offset(l, member), in},
                    {outputs[l - 1] + row * in, in, nullptr, outputs[l - 1] + row * in});
        });
#pragma omp barrier
    }
}

// found [rows, columns], the gradient of the inputs from `first_column` on, summed over members, from the gradient
// [members, rows, sizes[layers]] of the outputs. Rows in which it is zero are left out.
void input_gradient(const Network& network, int rows, float* const* outputs, const float* gradient,
                    int first_column, int columns, const float* transposed, float* found) {
    const int* sizes = network.sizes;
    const int last = network.layers - 1;
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
            const auto compact = [&](const float* from, long width, int where) {
                float* to = local(where, BLOCK * network.widest());
                for (int i = 0; i < many; i++)
                    std::copy_n(from + (begin + kept[i]) * width, width, to + i * width);
                return to;
            };
            const float* upper = compact(gradient, out, last % 2);
            for (int l = last; l > 0; l--) {
                float* lower = compact(outputs[l - 1], sizes[l], (l - 1) % 2);
                product(many, sizes[l], sizes[l + 1], {upper, sizes[l + 1], 1},
                        {transposed + network.offset(l, member), sizes[l]}, {lower, sizes[l], nullptr, lower});
                upper = lower;
            }
            float* left = local(2, BLOCK * network.widest());
            product(many, columns, sizes[1], {upper, sizes[1], 1},
                    {transposed + network.offset(0, member) + first_column, sizes[0]}, {left, columns});
            for (int i = 0; i < many; i++)
                for (int j = 0; j < columns; j++) found[(first + kept[i]) * columns + j] += left[i * columns + j];
        }
    });
}

// Where `forward` keeps what each layer gives: the last at `outputs`, the others in scratch memory.
std::vector<float*> record(const Network& network, int rows, float* outputs, Scratch& scratch) {
    std::vector<float*> kept;
    for (int l = 1; l < network.layers; l++)
        kept.push_back(scratch.take(static_cast<long>(network.members) * rows * network.sizes[l]));
    kept.push_back(outputs);
    return kept;
}

// The same, where only the outputs are kept.
std::vector<float*> only(const Network& network, float* outputs) {
    std::vector<float*> kept(network.layers, nullptr);
    kept.back() = outputs;
    return kept;
}

}  // namespace

extern "C" {

// outputs [members, rows, sizes[layers]], from inputs [rows, sizes[0]].
void perceptron_forward(const Network* network, int rows, const float* inputs, float* outputs) {
    const auto kept = only(*network, outputs);
#pragma omp parallel if (rows > BLOCK)
    forward(*network, rows, inputs, kept.data());
}

}  // extern "C"
