#include "cuda/owner.hpp"

#include <algorithm>
#include <utility>

#include "cuda/check.cuh"
#include "cuda/ops/topk.cuh"
#include "cuda/spin.hpp"

namespace waggle::cuda {

namespace {

constexpr int64_t kLargestBatch = 4096;  // queries

bool is_cancelled(const waggle_topk_args& args) {
  return args.is_cancelled != nullptr && args.is_cancelled(args.cancel_context) != 0;
}

// A batch stops when everybody in it wants that.
int32_t all_cancelled(void* context) {
  const auto& batch = *static_cast<const std::vector<waggle_topk_args*>*>(context);
  return std::all_of(batch.begin(), batch.end(), [](const waggle_topk_args* args) { return is_cancelled(*args); }) ? 1
                                                                                                                   : 0;
}

}  // namespace

Owner::~Owner() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
  }
  wanted_.notify_all();
  thread_.join();
}

int32_t Owner::wait_for(Request& request) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting_.push_back(&request);
    ++asked_;
  }
  wanted_.notify_one();
  if (!spin_until([&] { return request.done.load(); })) {
    std::unique_lock<std::mutex> lock(mutex_);
    finished_.wait(lock, [&] { return request.done.load(); });
  }
  return request.status;
}

int32_t Owner::run(std::function<int32_t(State&)> work) {
  Request request;
  request.work = std::move(work);
  return wait_for(request);
}

int32_t Owner::search(const waggle_device_matrix& matrix, waggle_topk_args& args, waggle_text* error) {
  Request request;
  request.matrix = &matrix;
  request.args = &args;
  request.error = error;
  return wait_for(request);
}

bool Owner::joins(const Request& first, const Request& other) {
  // Doubt is counted per search, so searches without exact rows stay alone.
  return !first.work && !other.work && first.matrix == other.matrix && first.matrix->view.d_exact != nullptr &&
         first.args->metric == other.args->metric && first.args->k == other.args->k && first.args->filter == nullptr &&
         other.args->filter == nullptr;
}

void Owner::serve() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    if (waiting_.empty() && !closing_) {
      const unsigned long long seen = asked_;
      lock.unlock();
      (void)spin_until([&] { return asked_ != seen; });
      lock.lock();
    }
    wanted_.wait(lock, [&] { return closing_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    std::vector<Request*> batch = {waiting_.front()};
    waiting_.pop_front();
    if (!batch[0]->work) {
      int64_t n_queries = batch[0]->args->n_queries;
      for (auto it = waiting_.begin(); it != waiting_.end();) {
        if (joins(*batch[0], **it) && n_queries + (*it)->args->n_queries <= kLargestBatch) {
          n_queries += (*it)->args->n_queries;
          batch.push_back(*it);
          it = waiting_.erase(it);
        } else {
          ++it;
        }
      }
    }
    lock.unlock();
    if (batch[0]->work) {
      batch[0]->status = guarded(nullptr, [&] { return batch[0]->work(state_); });
    } else {
      serve_searches(batch);
    }
    // What a failed call left under way may not meet the next one's memory, nor its caller's once that is told.
    if (std::any_of(batch.begin(), batch.end(), [](const Request* r) { return r->status != WAGGLE_BACKEND_OK; })) {
      state_.settle();
    }
    lock.lock();
    // From here on a request may be gone: its caller sees `done` without the lock.
    for (Request* request : batch) request->done = true;
    finished_.notify_all();
  }
}

void Owner::serve_searches(const std::vector<Request*>& batch) {
  const auto alone = [&](Request& request) {
    request.status = guarded(
        request.error, [&] { return topk_on_device(state_, request.matrix->view, *request.args, request.error); });
  };
  if (batch.size() == 1) return alone(*batch[0]);
  const int32_t status = guarded(nullptr, [&]() -> int32_t {
    const int64_t dim = batch[0]->matrix->view.dim;
    waggle_topk_args all = *batch[0]->args;
    all.n_queries = 0;
    queries_.clear();
    std::vector<waggle_topk_args*> members;
    for (const Request* request : batch) {
      members.push_back(request->args);
      all.n_queries += request->args->n_queries;
      queries_.insert(queries_.end(), request->args->queries, request->args->queries + request->args->n_queries * dim);
    }
    scores_.resize(static_cast<size_t>(all.n_queries * all.k));
    rows_.resize(static_cast<size_t>(all.n_queries * all.k));
    all.queries = queries_.data();
    all.scores = scores_.data();
    all.rows = rows_.data();
    all.is_cancelled = all_cancelled;
    all.cancel_context = &members;
    waggle_text text = {};
    text.struct_size = sizeof text;
    const int32_t answer = topk_on_device(state_, batch[0]->matrix->view, all, &text);
    // What one query is to blame for must not reach the others: each is tried alone.
    if (answer != WAGGLE_BACKEND_OK) return WAGGLE_BACKEND_FAILED;
    int64_t at = 0;
    for (Request* request : batch) {
      const int64_t count = request->args->n_queries * all.k;
      std::copy_n(scores_.data() + at, count, request->args->scores);
      std::copy_n(rows_.data() + at, count, request->args->rows);
      request->args->n_in_doubt = 0;
      request->args->n_rescored = all.n_rescored;  // of the batch: which query it was for is not known
      request->status = WAGGLE_BACKEND_OK;
      at += count;
    }
    return WAGGLE_BACKEND_OK;
  });
  if (status == WAGGLE_BACKEND_OK) return;
  for (Request* request : batch) {
    if (is_cancelled(*request->args)) {
      request->status = WAGGLE_BACKEND_CANCELLED;
    } else {
      alone(*request);
    }
  }
}

}  // namespace waggle::cuda
