#include "bench/clustered.hpp"

#include "test/unit/check.hpp"

using namespace waggle;

TEST("clustered vectors are the ones that the TypeScript generator draws") {
  bench::ClusteredShape shape;
  shape.dim = 48;
  shape.n_centres = 500;
  const bench::Clustered clustered(shape, 7);
  EXPECT(bench::fingerprint(clustered.rows(40, 3)) == 256125010u);
  EXPECT(bench::fingerprint(clustered.queries(5)) == 2497786982u);
}
