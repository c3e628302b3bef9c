// The part of LibTorch's stable C ABI that the kernels use.
//
// Every libtorch_cpu from 2.10 on exports these functions, and their meaning is frozen (torch/csrc/stable/c/shim.h).
// They are declared here rather than included so that the library builds without torch, for instance in an isolated
// build environment. tests/test_packaging.py compiles this file together with torch's headers, so that a wrong
// declaration is a compile error.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

struct AtenTensorOpaque;
struct TorchLibraryOpaque;
using AtenTensorHandle = AtenTensorOpaque*;
using TorchLibraryHandle = TorchLibraryOpaque*;
using AOTITorchError = int32_t;
using StableIValue = uint64_t;

extern "C" {
AOTITorchError aoti_torch_library_init_def(const char* ns, const char* file, uint32_t line, TorchLibraryHandle* out);
AOTITorchError aoti_torch_library_init_impl(const char* ns, const char* key, const char* file, uint32_t line,
                                            TorchLibraryHandle* out);
AOTITorchError aoti_torch_library_def(TorchLibraryHandle self, const char* schema);
AOTITorchError torch_library_impl(TorchLibraryHandle self, const char* name,
                                  void (*fn)(StableIValue*, uint64_t, uint64_t), uint64_t extension_build_version);
AOTITorchError aoti_torch_empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                                        int32_t device_type, int32_t device_index, AtenTensorHandle* out);
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle tensor);
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle tensor, void** out);
AOTITorchError aoti_torch_get_dim(AtenTensorHandle tensor, int64_t* out);
AOTITorchError aoti_torch_get_numel(AtenTensorHandle tensor, int64_t* out);
AOTITorchError aoti_torch_get_sizes(AtenTensorHandle tensor, int64_t** out);
AOTITorchError aoti_torch_get_strides(AtenTensorHandle tensor, int64_t** out);
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle tensor, int32_t* out);
AOTITorchError torch_parallel_for(int64_t begin, int64_t end, int64_t grain_size,
                                  void (*fn)(int64_t begin, int64_t end, void* context), void* context);
AOTITorchError torch_get_num_threads(uint32_t* out);
}

namespace mg {

constexpr uint64_t kTargetTorch = (uint64_t{2} << 56) | (uint64_t{10} << 48);  // built for 2.10 and later

inline void check(AOTITorchError error, const char* what) {
  if (error != 0) throw std::runtime_error(std::string("manual_grad: torch failed in ") + what);
}

// torch's ScalarType numbers (c10/core/ScalarType.h); they are part of its serialization format and cannot change.
enum class Dtype : int32_t {
  u8 = 0,
  i8 = 1,
  i16 = 2,
  i32 = 3,
  i64 = 4,
  f16 = 5,
  f32 = 6,
  f64 = 7,
  boolean = 11,
  bf16 = 15
};

// Owns one reference to a tensor, taken from the argument stack or newly allocated. An absent optional has
// data == nullptr and exists() == false.
class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(AtenTensorHandle handle) : handle_(handle) {
    int32_t dtype_code;
    check(aoti_torch_get_dtype(handle, &dtype_code), "get_dtype");
    dtype = static_cast<Dtype>(dtype_code);
    check(aoti_torch_get_data_ptr(handle, &data), "get_data_ptr");
    check(aoti_torch_get_dim(handle, &dim), "get_dim");
    check(aoti_torch_get_numel(handle, &numel), "get_numel");
    check(aoti_torch_get_sizes(handle, &sizes), "get_sizes");
    check(aoti_torch_get_strides(handle, &strides), "get_strides");
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  Tensor(Tensor&& other) noexcept { *this = static_cast<Tensor&&>(other); }
  Tensor& operator=(Tensor&& other) noexcept {
    std::memcpy(static_cast<void*>(this), &other, sizeof(Tensor));
    other.handle_ = nullptr;
    return *this;
  }
  ~Tensor() {
    if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
  }

  static Tensor empty(int64_t dim, const int64_t* sizes, const int64_t* strides, Dtype dtype) {
    constexpr int32_t kCpu = 0, kOnlyCpu = 0;
    AtenTensorHandle handle;
    if (aoti_torch_empty_strided(dim, sizes, strides, static_cast<int32_t>(dtype), kCpu, kOnlyCpu, &handle) != 0)
      throw std::runtime_error("manual_grad: not enough memory for a result");
    return Tensor(handle);
  }
  AtenTensorHandle release() {
    AtenTensorHandle handle = handle_;
    handle_ = nullptr;
    return handle;
  }

  bool exists() const { return handle_ != nullptr; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }

  void* data = nullptr;
  int64_t dim = 0, numel = 0;
  int64_t* sizes = nullptr;
  int64_t* strides = nullptr;
  Dtype dtype = Dtype::f32;

 private:
  AtenTensorHandle handle_ = nullptr;
};

// Reads an op's arguments off torch's stack, in the order of its schema.
class Arguments {
 public:
  explicit Arguments(StableIValue* stack) : next_(stack) {}
  Tensor tensor() { return Tensor(reinterpret_cast<AtenTensorHandle>(*next_++)); }
  Tensor optional_tensor() {  // null, or a heap cell that we own
    auto* cell = reinterpret_cast<StableIValue*>(*next_++);
    if (cell == nullptr) return {};
    Tensor value(reinterpret_cast<AtenTensorHandle>(*cell));
    delete cell;
    return value;
  }
  double real() {
    double value;
    std::memcpy(&value, next_++, sizeof value);
    return value;
  }
  int64_t integer() { return static_cast<int64_t>(*next_++); }
  bool boolean() { return (*next_++ & 0xff) != 0; }

 private:
  StableIValue* next_;
};

// Puts an op's results on torch's stack, in the order of its schema; all of them are Tensor?.
class Results {
 public:
  explicit Results(StableIValue* stack) : next_(stack) {}
  void put(Tensor&& tensor) {
    const bool exists = tensor.exists();
    *next_++ =
        exists ? reinterpret_cast<StableIValue>(new StableIValue(reinterpret_cast<StableIValue>(tensor.release()))) : 0;
  }

 private:
  StableIValue* next_;
};

// Calls body(begin, end) over [0, n) on torch's own threads.
template <class Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= grain) {
    if (n > 0) body(0, n);
    return;
  }
  auto call = [](int64_t begin, int64_t end, void* context) { (*static_cast<const Body*>(context))(begin, end); };
  check(torch_parallel_for(0, n, grain, call, const_cast<Body*>(&body)), "parallel_for");
}

// An op, to be registered by library.cpp. The constructor adds it to the list of all ops.
struct Op {
  using Boxed = void (*)(StableIValue* stack, uint64_t arguments, uint64_t results);
  Op(const char* name, std::string schema, Boxed boxed)
      : name(name), schema(static_cast<std::string&&>(schema)), boxed(boxed), next(first) {
    first = this;
  }
  Op(const Op&) = delete;

  const char* name;
  std::string schema;  // the part after the name
  Boxed boxed;
  const Op* next;
  inline static const Op* first = nullptr;
};

}  // namespace mg
