// Registers every kernel with torch's dispatcher as torch.ops.manual_grad.<name>, for CPU tensors.
#include "abi.h"

namespace mg {
namespace {

struct Registration {
  Registration() {
    TorchLibraryHandle definitions, cpu;
    check(aoti_torch_library_init_def("manual_grad", __FILE__, __LINE__, &definitions), "library_init_def");
    check(aoti_torch_library_init_impl("manual_grad", "CPU", __FILE__, __LINE__, &cpu), "library_init_impl");
    for (const Op* op = Op::first; op != nullptr; op = op->next) {
      check(aoti_torch_library_def(definitions, (op->name + op->schema).c_str()), op->name);
      check(torch_library_impl(cpu, op->name, op->boxed, kTargetTorch), op->name);
    }
  }
};

}  // namespace
}  // namespace mg

// Called once by manual_grad/kernels/__init__.py through ctypes. Returns null or an error message. The registrations
// live as long as the process.
extern "C" __attribute__((visibility("default"))) const char* manual_grad_register() noexcept try {
  static const mg::Registration once;
  return nullptr;
} catch (const std::exception& error) {
  static const std::string message = error.what();
  return message.c_str();
}
