#include "addon/env_state.hpp"

#include <exception>

#include "addon/error.hpp"

namespace waggle::addon {

namespace {

// The pool starts with the first job.
ThreadPool& started_pool(Napi::Env env) {
  try {
    return ThreadPool::instance();
  } catch (const std::exception& error) {
    throw to_error(env, fail(Code::kOutOfMemory, "no thread can be started: %s", error.what()));
  }
}

}  // namespace

EnvState::EnvState(Napi::Env env) : env_(env) {
  napi_value name = Napi::String::New(env, "waggle");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, settle_finished,
                                      &settle_) != napi_ok) {
    throw Napi::Error::New(env, "waggle: cannot create a thread-safe function");
  }
  // Idle, it must not keep the process alive; submit() refs it while jobs run.
  napi_unref_threadsafe_function(env, settle_);
  // Hooks run last in, first out: this one runs before the function's own, while it is still usable.
  napi_add_env_cleanup_hook(env, on_teardown, this);
}

void EnvState::expect_free(Napi::Env env, const Lease* wanted, size_t n) const {
  for (size_t i = 0; i < n; ++i) {
    for (const auto& [id, other] : jobs_) {
      for (const Lease& held : other->leases()) {
        if (wanted[i].conflicts_with(held)) {
          throw to_error(env, fail(Code::kLeased, "%s overlaps memory that running job %u %s as %s", wanted[i].name, id,
                                   held.writes ? "writes" : "reads", held.name));
        }
      }
    }
    for (size_t j = 0; j < i; ++j) {
      if (wanted[i].conflicts_with(wanted[j])) {
        throw to_error(env, fail(Code::kLeased, "%s and %s overlap", wanted[j].name, wanted[i].name));
      }
    }
  }
}

Napi::Value EnvState::submit(Napi::Env env, std::unique_ptr<Job> owned) {
  expect_free(env, owned->leases().data(), owned->leases().size());
  ThreadPool& pool = started_pool(env);

  Job* job = owned.get();
  Napi::Array pinned = Napi::Array::New(env, job->values_.size());
  for (size_t i = 0; i < job->values_.size(); ++i) {
    pinned.Set(static_cast<uint32_t>(i), Napi::Value(env, job->values_[i]));
  }
  job->values_.clear();
  napi_value promise = nullptr;
  if (napi_create_reference(env, pinned, 1, &job->pin_) != napi_ok ||
      napi_create_promise(env, &job->deferred_, &promise) != napi_ok) {
    throw Napi::Error::New(env, "waggle: cannot create a promise");
  }
  do {
    job->id_ = ++last_id_;
  } while (jobs_.count(job->id_) != 0);
  Napi::Object answer = Napi::Object::New(env);
  answer.Set("id", Napi::Number::New(env, job->id_));
  answer.Set("promise", Napi::Value(env, promise));

  {
    std::lock_guard<std::mutex> lock(mutex_);
    ++n_unfinished_;
  }
  if (jobs_.empty()) napi_ref_threadsafe_function(env, settle_);
  jobs_.emplace(job->id_, std::move(owned));
  job->pool_id_ = pool.submit([this, job] {
    RunContext context;
    context.cancelled = &job->cancelled_;
    job->status_ = context.stop_requested() ? fail(Code::kCancelled, "cancelled") : job->execute(context);
    finished(job);
  });
  return answer;
}

void EnvState::cancel(uint32_t id) {
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) return;
  Job* job = found->second.get();
  job->cancelled_.store(true);
  if (ThreadPool::instance().withdraw(job->pool_id_)) {
    job->status_ = fail(Code::kCancelled, "cancelled");
    finished(job);
  }
}

void EnvState::finished(Job* job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    finished_.push_back(job);
  }
  // The bell rings without the lock, which the woken thread takes first of all; `job` may be gone from here on. Only
  // then is the job no longer counted: once n_unfinished_ is 0, teardown may go on and no thread uses `settle_`.
  napi_call_threadsafe_function(settle_, nullptr, napi_tsfn_nonblocking);
  std::lock_guard<std::mutex> lock(mutex_);
  if (--n_unfinished_ == 0) all_done_.notify_all();
}

void EnvState::settle_finished(napi_env env, napi_value, void* context, void*) {
  if (env == nullptr) return;  // the environment is going; `context` may be gone already
  EnvState& self = *static_cast<EnvState*>(context);
  std::vector<Job*> ready;
  {
    std::lock_guard<std::mutex> lock(self.mutex_);
    ready.swap(self.finished_);
  }
  for (Job* job : ready) {
    const auto entry = self.jobs_.extract(job->id_);
    if (self.jobs_.empty()) napi_unref_threadsafe_function(env, self.settle_);
    napi_delete_reference(env, job->pin_);
    try {
      check(env, job->status_);
      napi_resolve_deferred(env, job->deferred_, job->result(env));
    } catch (const Napi::Error& error) {
      napi_reject_deferred(env, job->deferred_, error.Value());
    }
  }
}

void EnvState::on_teardown(void* self) { static_cast<EnvState*>(self)->teardown(); }

// Running jobs borrow memory that dies with the environment: stop them and wait, one tile at most.
void EnvState::teardown() {
  for (const auto& [id, job] : jobs_) {
    job->cancelled_.store(true);
    if (ThreadPool::instance().withdraw(job->pool_id_)) {
      std::lock_guard<std::mutex> lock(mutex_);
      --n_unfinished_;
    }
  }
  {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [this] { return n_unfinished_ == 0; });
  }
  napi_release_threadsafe_function(settle_, napi_tsfn_abort);
  jobs_.clear();
}

}  // namespace waggle::addon
