#include "waggle/ops/rank_batch.hpp"

#include <limits>

#include "addon/env_state.hpp"
#include "addon/handle.hpp"
#include "addon/jobs/device_items_handle.hpp"
#include "addon/jobs/jobs.hpp"
#include "addon/jobs/trees_handle.hpp"

namespace waggle::addon {

namespace {

enum Argument {
  kParams,  // Float64Array, see Param
  kBits,
  kCandidates,
  kOffsets,
  kQueries,
  kEmbeddings,
  kItemFeatures,
  kRequestFeatures,
  kTrees,
  kCoefficients,
  kPrice,
  kVolume,
  kFixedSpend,
  kPayoutShare,
  kQ,
  kFit,
  kAdvertiser,
  kExplore,
  kGoalUnits,
  kFrequency,
  kMu,
  kOmega,
  kRho,
  kGroup,
  kSeparation,
  kItems,
  kScores,
  kTerms,
  kPredictions,
  kCounts,
  kResident,
  kCount
};

enum Param {
  kNRequests,
  kNItems,
  kK,
  kBitmapPerRequest,
  kNCandidates,
  kDim,
  kMetric,
  kNItemFeatures,
  kNRequestFeatures,
  kSimilarityIsFeature,
  kOutput,
  kIntercept,
  kCalibrationA,
  kCalibrationB,
  kMargin,
  kFitWeight,
  kAdvertiserWeight,
  kPayoutWeight,
  kExploreWeight,
  kMaxPerGroup,
  kParamCount
};

class RankBatchJob final : public Job {
 public:
  explicit RankBatchJob(const Napi::CallbackInfo& info) {
    const Napi::Env env = info.Env();
    if (info.Length() < kCount) {
      throw to_error(env, fail(Code::kInvalidArgument, "rankBatch takes %d arguments", static_cast<int>(kCount)));
    }
    const double* params = input<double>(env, info[kParams], kParamCount, "params");
    const auto size = [&](Param p, const char* name) {
      const double value = params[p];
      if (!(value >= 0) || !(value <= std::numeric_limits<int32_t>::max())) {
        throw to_error(env, fail(Code::kShape, "%s is out of range", name));
      }
      return static_cast<int64_t>(value);
    };
    const auto product = [&](int64_t a, int64_t b) {
      int64_t result = 0;
      if (!checked_product(a, b, &result)) throw to_error(env, fail(Code::kShape, "sizes overflow"));
      return result;
    };
    const int64_t n_requests = size(kNRequests, "nRequests");
    const int64_t n_items = size(kNItems, "nItems");
    const int64_t k = size(kK, "k");
    args_.n_requests = n_requests;
    args_.n_items = n_items;
    args_.k = static_cast<int32_t>(k);
    const int64_t row_bytes = (n_items + 7) / 8;
    if (!is_absent(env, info[kBits])) {
      const bool own = params[kBitmapPerRequest] != 0;
      const int64_t bytes = own ? product(n_requests, row_bytes) : row_bytes;
      const uint8_t* bits = input<uint8_t>(env, info[kBits], bytes, "eligible");
      args_.filter = own ? RowFilter::per_query(bits, row_bytes, n_requests) : RowFilter::shared(bits, bytes);
    }
    args_.candidates =
        optional_input<int32_t>(env, info[kCandidates], size(kNCandidates, "candidates"), "candidates.items");
    args_.offsets = optional_input<int32_t>(env, info[kOffsets], n_requests + 1, "candidates.offsets");
    if (args_.offsets != nullptr && args_.offsets[n_requests] > size(kNCandidates, "candidates")) {
      throw to_error(env, fail(Code::kShape, "candidates.items has fewer elements than candidates.offsets says"));
    }
    const int64_t dim = size(kDim, "dim");
    if (dim > 0) {
      args_.queries = {input<float>(env, info[kQueries], product(n_requests, dim), "queries"), n_requests, dim};
      args_.embeddings = {input<float>(env, info[kEmbeddings], product(n_items, dim), "embeddings"), n_items, dim};
      args_.metric = static_cast<Metric>(static_cast<int32_t>(params[kMetric]));
    }
    const int64_t n_item_features = size(kNItemFeatures, "nItemFeatures");
    const int64_t n_request_features = size(kNRequestFeatures, "nRequestFeatures");
    if (n_item_features > 0) {
      args_.item_features = {input<float>(env, info[kItemFeatures], product(n_items, n_item_features), "itemFeatures"),
                             n_items, n_item_features};
    }
    if (n_request_features > 0) {
      args_.request_features = {
          input<float>(env, info[kRequestFeatures], product(n_requests, n_request_features), "requestFeatures"),
          n_requests, n_request_features};
    }
    args_.similarity_is_feature = params[kSimilarityIsFeature] != 0;
    args_.output = static_cast<int32_t>(size(kOutput, "output"));
    if (!is_absent(env, info[kTrees])) {
      model_ = Handle<TreesModel>::get(env, info[kTrees], "model");
      args_.trees = model_->model.get();
    }
    if (!is_absent(env, info[kResident])) {
      resident_ = Handle<DeviceItemsObject>::get(env, info[kResident], "resident");
      args_.resident = resident_->items.get();
    }
    if (!is_absent(env, info[kCoefficients])) {
      const int64_t n = n_item_features + n_request_features + (args_.similarity_is_feature ? 1 : 0);
      linear_.coefficients = input<double>(env, info[kCoefficients], n, "model.coefficients");
      linear_.intercept = params[kIntercept];
      linear_.calibration_a = params[kCalibrationA];
      linear_.calibration_b = params[kCalibrationB];
      args_.linear = &linear_;
    }
    const auto column = [&](Argument a, const char* name, int64_t length) {
      return optional_input<float>(env, info[a], length, name);
    };
    args_.price = column(kPrice, "price", n_items);
    args_.volume = column(kVolume, "volume", n_requests);
    args_.fixed_spend = column(kFixedSpend, "fixedSpend", n_items);
    args_.payout_share = column(kPayoutShare, "payoutShare", n_items);
    args_.q = column(kQ, "q", n_items);
    args_.fit = column(kFit, "fit", n_items);
    args_.advertiser = column(kAdvertiser, "advertiser", n_items);
    args_.explore = column(kExplore, "explore", n_items);
    args_.goal_units = column(kGoalUnits, "goalUnits", n_items);
    args_.frequency = column(kFrequency, "frequency", n_items);
    args_.mu = column(kMu, "mu", n_items);
    args_.omega = column(kOmega, "omega", n_items);
    args_.rho = column(kRho, "rho", n_items);
    args_.group = optional_input<int32_t>(env, info[kGroup], n_items, "group");
    args_.separation = optional_input<int32_t>(env, info[kSeparation], n_items, "separation");
    args_.max_per_group = static_cast<int32_t>(size(kMaxPerGroup, "maxPerGroup"));
    args_.weights = {params[kMargin], params[kFitWeight], params[kAdvertiserWeight], params[kPayoutWeight],
                     params[kExploreWeight]};
    const int64_t answers = product(n_requests, k);
    args_.items = output<int32_t>(env, info[kItems], answers, "out.items");
    args_.scores = output<double>(env, info[kScores], answers, "out.scores");
    args_.terms = output<double>(env, info[kTerms], product(answers, kScoreTerms), "out.terms");
    args_.predictions = output<float>(env, info[kPredictions], answers, "out.predictions");
    args_.counts = output<int32_t>(env, info[kCounts], product(n_requests, 2), "out.counts");
  }

  Status execute(const RunContext& context) override { return rank_batch(args_, context); }

 private:
  std::shared_ptr<TreesModel> model_;
  std::shared_ptr<DeviceItemsObject> resident_;
  LinearModel linear_;
  RankBatchArgs args_;
};

}  // namespace

Napi::Value rank_batch_job(const Napi::CallbackInfo& info) {
  return EnvState::of(info.Env()).submit(info.Env(), std::make_unique<RankBatchJob>(info));
}

}  // namespace waggle::addon
