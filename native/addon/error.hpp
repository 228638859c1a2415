// A failed Status as a JavaScript Error with its code. The TypeScript face turns it into a WaggleError.
#pragma once

#include <napi.h>

#include "waggle/status.hpp"

namespace waggle::addon {

const char* code_name(Code code);

Napi::Error to_error(Napi::Env env, const Status& status);

/// Throws unless ok.
void check(Napi::Env env, const Status& status);

}  // namespace waggle::addon
