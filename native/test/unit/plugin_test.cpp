// plugin_test <behaviour> <auto|cuda>: what becomes of a plugin that behaves like that.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "waggle/backend.hpp"
#include "waggle/ivf.hpp"
#include "waggle/ops/kmeans.hpp"
#include "waggle/ops/rank_batch.hpp"
#include "waggle/ops/score_rank.hpp"
#include "waggle/ops/topk.hpp"
#include "waggle/ops/trees_fit.hpp"

using namespace waggle;

namespace {

// Enough rows and features to be sent to a device, but for those columns that say nothing.
Status train(TreesFitResult* result) {
  constexpr int64_t kRows = 50'000;
  constexpr int64_t kFeatures = 100;
  std::vector<float> x(kRows * kFeatures, 1.0f);
  std::vector<double> y(kRows);
  for (int64_t r = 0; r < kRows; ++r) {
    x[static_cast<size_t>(r * kFeatures)] = static_cast<float>(r % 10);
    y[static_cast<size_t>(r)] = r % 10 < 4 ? 1 : 0;
  }
  TreesFitArgs args;
  args.train.x = {x.data(), kRows, kFeatures};
  args.train.y = y.data();
  args.objective = TreesObjective::kSquared;
  args.max_leaves = 2;
  return trees_fit(args, RunContext{}, result);
}

// Each operation with and without the device, whose answers must be the processor's or an error.
struct Answers {
  Status score, batch, clusters, lists;
  std::vector<int32_t> rows, items, assignments;
};

Answers rank_and_cluster() {
  Answers answers;
  const std::vector<float> column = {1, 4, 2, 3};
  answers.rows.assign(2, -1);
  std::vector<double> scores(2), terms(2 * kScoreTerms);
  ScoreRankArgs rank;
  rank.n = 4;
  rank.k = 2;
  rank.q = rank.spend = rank.payout = rank.fit = column.data();
  rank.weights.margin = 1;
  rank.rows = answers.rows.data();
  rank.scores = scores.data();
  rank.terms = terms.data();
  ScoreRankCounts counts;
  answers.score = score_rank(rank, RunContext{}, &counts);

  const double coefficient = 1;
  const LinearModel linear = {&coefficient, 0, 1, 0};
  answers.items.assign(2, -1);
  std::vector<float> predictions(2);
  std::vector<int32_t> chosen_and_eligible(2);
  RankBatchArgs batch;
  batch.n_requests = 1;
  batch.n_items = 4;
  batch.k = 2;
  batch.item_features = {column.data(), 4, 1};
  batch.linear = &linear;
  batch.price = column.data();
  batch.weights.margin = 1;
  batch.items = answers.items.data();
  batch.scores = scores.data();
  batch.terms = terms.data();
  batch.predictions = predictions.data();
  batch.counts = chosen_and_eligible.data();
  answers.batch = rank_batch(batch, RunContext{});

  std::vector<float> centroids(2);
  answers.assignments.assign(4, -1);
  KmeansArgs clusters;
  clusters.x = {column.data(), 4, 1};
  clusters.k = 2;
  clusters.centroids = centroids.data();
  clusters.assignments = answers.assignments.data();
  KmeansResult result;
  answers.clusters = kmeans(clusters, RunContext{}, &result);

  IvfBuildArgs lists;
  lists.matrix = {column.data(), 4, 1};
  lists.metric = Metric::kL2;
  lists.n_lists = 2;
  std::shared_ptr<const IvfIndex> index;
  answers.lists = IvfIndex::build(lists, RunContext{}, &index);
  return answers;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string behaviour = argc > 1 ? argv[1] : "";
  const bool forced = argc > 2 && std::string(argv[2]) == "cuda";
  const bool loads = behaviour != "absent" && behaviour != "broken" && behaviour != "old" && behaviour != "refuses";
  const BackendInfo& info = backend_info();
  const auto wrong = [&](const char* what) {
    std::printf("FAIL %s: %s\n", behaviour.c_str(), what);
    return 1;
  };

  if (loads != (info.backend == "cuda")) return wrong("chosen backend");
  if (backend_status().ok() != (loads || !forced)) return wrong("status: only a forced choice may fail");
  if (!loads) {
    if (info.rejected.empty() || info.rejected.back().name != "cuda" || info.rejected.back().reason.empty()) {
      return wrong("no reason given");
    }
    std::printf("reason: %s\n", info.rejected.back().reason.c_str());
  } else if (info.device != "fake device") {
    return wrong("device name");
  }

  std::vector<float> queries = {1, 0}, matrix = {1, 0, 3, 0, 2, 0};
  float score = 0;
  int32_t row = 0;
  TopkArgs args;
  args.queries = {queries.data(), 1, 2};
  args.matrix = {matrix.data(), 3, 2};
  args.k = 1;
  args.scores = &score;
  args.rows = &row;
  const Status status = topk(args, RunContext{});
  if (forced && (!loads || behaviour == "fails")) {
    if (status.code() != Code::kBackend) return wrong("a forced choice that fails must be an error");
    std::printf("error: %s\n", status.text().c_str());
  } else {
    if (!status.ok()) return wrong(status.text().c_str());
    // Small work goes to a device only when it was forced.
    const bool from_plugin = forced && behaviour == "writes_answer";
    if (row != (from_plugin ? 7 : 1) || score != (from_plugin ? 42.0f : 3.0f)) return wrong("answer");
  }

  TreesFitResult result;
  const Status trained = train(&result);
  if (forced && (!loads || behaviour == "fails" || behaviour == "breaks")) {
    if (trained.code() != (behaviour == "fails" ? Code::kOutOfMemory : Code::kBackend)) {
      return wrong("a forced choice that cannot train must be an error");
    }
    std::printf("error: %s\n", trained.text().c_str());
  } else if (!trained.ok()) {
    return wrong(trained.text().c_str());
  } else if (result.on_device || result.train_loss.size() != 100 || !(result.train_loss.back() < 1e-4)) {
    return wrong("the CPU did not take over");
  }
  const Answers answers = rank_and_cluster();
  const bool is_lost = forced && (behaviour == "fails" || behaviour == "breaks");
  for (const Status* one : {&answers.score, &answers.batch, &answers.clusters, &answers.lists}) {
    if (forced && (!loads || is_lost)) {
      const Code code = loads && behaviour == "fails" ? Code::kOutOfMemory : Code::kBackend;
      if (one->code() != code) return wrong("a forced choice that cannot rank or cluster must be an error");
    } else if (!one->ok()) {
      return wrong(one->text().c_str());
    }
  }
  if (!forced || (loads && !is_lost)) {
    if (answers.rows != std::vector<int32_t>{1, 3} || answers.items != std::vector<int32_t>{1, 3} ||
        answers.assignments[0] == answers.assignments[1]) {
      return wrong("the CPU did not rank or cluster instead");
    }
  }
  std::printf("6 passed, 0 failed\n");
  return 0;
}
