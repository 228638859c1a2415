// Vectors that cluster as embeddings do: centres of Zipf-distributed weight on a subspace of low intrinsic dimension,
// spread around each centre within it, a little noise in every coordinate, unit length. Row r depends on the seed and
// on r alone. `benchmarks/src/data/clustered.ts` draws the same bits: only additions, multiplications, divisions and
// square roots, which IEEE 754 rounds alike everywhere, in the same order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace waggle::bench {

struct ClusteredShape {
  int64_t dim = 384;
  int64_t n_centres = 20000;  // centre c has weight 1 / (c + 1)
  int64_t intrinsic_dim = 24;
  double spread = 0.4;  // standard deviation within a cluster, where that of the centres is 1
  double noise = 0.1;   // of a coordinate's noise, where that of the centres' coordinates is 1
};

class Clustered {
 public:
  Clustered(const ClusteredShape& shape, uint32_t seed)
      : shape_(shape),
        seed_(seed),
        noise_(shape.noise / std::sqrt(21845.0)),  // the variance of a sum of four uniform bytes
        projection_(static_cast<size_t>(shape.intrinsic_dim * shape.dim)),
        centres_(static_cast<size_t>(shape.n_centres * shape.intrinsic_dim)),
        cumulative_(static_cast<size_t>(shape.n_centres)) {
    const double scale = std::sqrt(static_cast<double>(shape.intrinsic_dim));
    for (int64_t j = 0; j < shape.intrinsic_dim; ++j) {
      Stream stream(seed, kProjection, static_cast<uint32_t>(j));
      for (int64_t i = 0; i < shape.dim; ++i) {
        projection_[static_cast<size_t>(j * shape.dim + i)] = stream.normal() / scale;
      }
    }
    double total = 0;
    for (int64_t c = 0; c < shape.n_centres; ++c) {
      Stream stream(seed, kCentre, static_cast<uint32_t>(c));
      for (int64_t j = 0; j < shape.intrinsic_dim; ++j) {
        centres_[static_cast<size_t>(c * shape.intrinsic_dim + j)] = stream.normal();
      }
      total += 1.0 / static_cast<double>(c + 1);
      cumulative_[static_cast<size_t>(c)] = total;
    }
  }

  /// Rows first … first + n − 1, [n × dim].
  std::vector<float> rows(int64_t n, int64_t first = 0) const { return draw(kRow, n, first); }

  /// Held-out queries from the same distribution: no row is a query.
  std::vector<float> queries(int64_t n, int64_t first = 0) const { return draw(kQuery, n, first); }

 private:
  enum Kind : uint32_t { kProjection = 1, kCentre = 2, kRow = 3, kQuery = 4 };

  // sfc32 (Doty-Humphrey, PractRand), named by seed, kind and index.
  class Stream {
   public:
    Stream(uint32_t seed, uint32_t kind, uint32_t index) : a_(seed), b_(kind), c_(index) {
      for (int i = 0; i < 12; ++i) next();
    }
    uint32_t next() {
      const uint32_t out = a_ + b_ + counter_++;
      a_ = b_ ^ (b_ >> 9);
      b_ = c_ + (c_ << 3);
      c_ = ((c_ << 21) | (c_ >> 11)) + out;
      return out;
    }
    // Nearly standard normal: twelve 16-bit uniforms less their mean.
    double normal() {
      uint32_t sum = 0;
      for (int i = 0; i < 6; ++i) {
        const uint32_t word = next();
        sum += (word & 0xffffu) + (word >> 16);
      }
      return (static_cast<double>(sum) - 393210.0) / 65536.0;
    }

   private:
    uint32_t a_, b_, c_;
    uint32_t counter_ = 1;
  };

  std::vector<float> draw(Kind kind, int64_t n, int64_t first) const {
    std::vector<float> out(static_cast<size_t>(n * shape_.dim));
    std::vector<double> latent(static_cast<size_t>(shape_.intrinsic_dim)), signal(static_cast<size_t>(shape_.dim));
    for (int64_t r = 0; r < n; ++r) {
      one(kind, static_cast<uint32_t>(first + r), latent, signal, out.data() + r * shape_.dim);
    }
    return out;
  }

  void one(Kind kind, uint32_t index, std::vector<double>& latent, std::vector<double>& signal, float* out) const {
    const size_t dim = static_cast<size_t>(shape_.dim);
    Stream stream(seed_, kind, index);
    const double pick = static_cast<double>(stream.next()) / 4294967296.0 * cumulative_.back();
    size_t low = 0;
    size_t high = cumulative_.size() - 1;
    while (low < high) {
      const size_t middle = (low + high) / 2;
      if (cumulative_[middle] > pick) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    for (size_t j = 0; j < latent.size(); ++j) {
      latent[j] = centres_[low * latent.size() + j] + shape_.spread * stream.normal();
    }
    std::fill(signal.begin(), signal.end(), 0.0);
    for (size_t j = 0; j < latent.size(); ++j) {
      const double* direction = projection_.data() + j * dim;
      for (size_t i = 0; i < dim; ++i) signal[i] += latent[j] * direction[i];
    }
    double square = 0;
    for (size_t i = 0; i < dim; ++i) {
      const uint32_t word = stream.next();
      const int bytes = static_cast<int>((word & 255u) + ((word >> 8) & 255u) + ((word >> 16) & 255u) + (word >> 24));
      const double value = signal[i] + noise_ * static_cast<double>(bytes - 510);
      signal[i] = value;
      square += value * value;
    }
    const double norm = std::sqrt(square);
    for (size_t i = 0; i < dim; ++i) out[i] = static_cast<float>(signal[i] / norm);
  }

  ClusteredShape shape_;
  uint32_t seed_;
  double noise_;
  std::vector<double> projection_;
  std::vector<double> centres_;
  std::vector<double> cumulative_;
};

/// FNV-1a over the bits of the values.
inline uint32_t fingerprint(const std::vector<float>& values) {
  uint32_t hash = 0x811c9dc5u;
  for (const float value : values) {
    uint32_t word = 0;
    std::memcpy(&word, &value, sizeof word);
    hash = (hash ^ word) * 0x01000193u;
  }
  return hash;
}

}  // namespace waggle::bench
