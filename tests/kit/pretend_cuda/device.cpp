// A pretend CUDA device for a CPU-only PyTorch. Memory and kernels are the processor's; the rules about which device a
// tensor or a generator is on are CUDA's. It counts what would make the host wait for a card, counts the bytes that live on
// it, and can be given a limit of them.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/Resize.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

namespace {

using at::Tensor;
constexpr auto CUDA = c10::DeviceType::CUDA;

// Counts ---------------------------------------------------------------------------------------------------------------
std::atomic<long long> limit{1LL << 60}, live{0}, peak{0};
std::mutex lock;
std::map<std::string, long> waits;  // operation or copy -> how often the host waited for it

void note_wait(const std::string& what) {
  std::lock_guard<std::mutex> guard(lock);
  waits[what]++;
}

// One device, one stream, nothing ever pending --------------------------------------------------------------------------
struct Guard final : c10::impl::NoOpDeviceGuardImpl<CUDA> {
  static c10::Device device() { return c10::Device(CUDA, 0); }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  c10::Device getDevice() const override { return device(); }
  c10::Device exchangeDevice(c10::Device) const override { return device(); }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream getNewStream(c10::Device, int) const override { return stream(); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
  void record(void** event, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {
    *event = reinterpret_cast<void*>(1);
  }
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};
c10::impl::DeviceGuardImplRegistrar registered(CUDA, new Guard());

// Memory, in pieces of 512 bytes as CUDA's allocator hands it out --------------------------------------------------------
struct Block {
  void* data;
  size_t size;
};

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  live -= block->size;
  std::free(block->data);
  delete block;
}

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    const size_t rounded = (size + 511) / 512 * 512;
    TORCH_CHECK_WITH(OutOfMemoryError, live + (long long)rounded <= limit, "CUDA out of memory. Tried to allocate ",
                     rounded, " bytes (pretend).");
    auto* block = new Block{size ? std::aligned_alloc(512, rounded) : nullptr, rounded};
    long long now = live += rounded, was = peak;
    while (now > was && !peak.compare_exchange_weak(was, now)) {}
    return {block->data, block, &release, Guard::device()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};
Allocator allocator;

std::map<const void*, size_t> pinned;  // page-locked memory of the host, by address

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    void* data = size ? std::malloc(size) : nullptr;
    std::lock_guard<std::mutex> guard(lock);
    if (data) pinned[data] = size;
    return {data, data, &unpin, c10::Device(c10::kCPU)};
  }
  static void unpin(void* data) {
    std::lock_guard<std::mutex> guard(lock);
    pinned.erase(data);
    std::free(data);
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
};
PinnedAllocator pinned_allocator;

bool is_pinned(const void* data) {
  std::lock_guard<std::mutex> guard(lock);
  auto found = pinned.upper_bound(data);
  if (found == pinned.begin()) return false;
  --found;
  return static_cast<const char*>(data) < static_cast<const char*>(found->first) + found->second;
}

// Generators that say they are on the card -------------------------------------------------------------------------------
struct Generator final : c10::GeneratorImpl {
  explicit Generator(at::Generator inner)
      : c10::GeneratorImpl(Guard::device(), c10::DispatchKeySet(c10::DispatchKey::CUDA)), inner(std::move(inner)) {}
  at::Generator inner;
  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_state(const c10::TensorImpl& state) override {
    auto& shared = const_cast<c10::TensorImpl&>(state);
    inner.set_state(Tensor(c10::intrusive_ptr<c10::TensorImpl>::reclaim_copy(&shared)));
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.get_state().getIntrusivePtr(); }
  Generator* clone_impl() const override { return new Generator(inner.clone()); }
};

at::Generator make_generator(uint64_t seed) {
  return at::make_generator<Generator>(at::detail::createCPUGenerator(seed));
}

at::Generator& default_generator() {
  static at::Generator made = make_generator(0);
  return made;
}

at::Generator processors(const std::optional<at::Generator>& given) {
  if (!given || !given->defined())
    return static_cast<Generator*>(default_generator().unsafeGetGeneratorImpl())->inner;
  TORCH_CHECK(given->device().type() == CUDA, "Expected a 'cuda' device type for generator but found '",
              given->device().type(), "'");
  return static_cast<Generator*>(given->unsafeGetGeneratorImpl())->inner;
}

struct PretendCUDAHooks final : at::CUDAHooksInterface {
  explicit PretendCUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  c10::DeviceIndex current_device() const override { return 0; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return make_generator(c10::default_rng_seed_val); }
  c10::Allocator* getCUDADeviceAllocator() const override { return &allocator; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  void deviceSynchronize(c10::DeviceIndex) const override {}
};
using at::CUDAHooksArgs;
using at::CUDAHooksInterface;
using at::CUDAHooksRegistry;

}  // namespace

namespace at {
using ::PretendCUDAHooks;
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, PretendCUDAHooks)
}  // namespace at

namespace {

// Tensors: the same bytes seen from either side --------------------------------------------------------------------------
Tensor with_storage(c10::Storage storage, c10::DispatchKey key, const Tensor& like) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  auto* impl = made.unsafeGetTensorImpl();
  impl->set_storage_offset(like.storage_offset());
  impl->set_sizes_and_strides(like.sizes(), like.strides());
  return made;
}

Tensor as_cpu(const Tensor& t) {
  if (!t.defined() || t.device().type() != CUDA) return t;
  c10::Storage held = t.storage();
  c10::DataPtr data(held.mutable_data(), new c10::Storage(held),
                    [](void* kept) { delete static_cast<c10::Storage*>(kept); }, c10::kCPU);
  c10::Storage storage(c10::Storage::use_byte_size_t(), held.nbytes(), std::move(data), c10::GetAllocator(c10::kCPU),
                       true);
  Tensor made = with_storage(std::move(storage), c10::DispatchKey::CPU, t);
  if (t.is_conj()) made._set_conj(true);
  return made;
}

Tensor as_cuda(const Tensor& t, const std::vector<Tensor>& given) {
  if (!t.defined() || t.device().type() != c10::kCPU) return t;
  const void* base = t.storage().data();
  for (const auto& input : given)
    if (base && input.storage().data() == base) {  // a view of it
      auto made = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(input.storage()),
                                                           input.key_set(), t.dtype());
      made.unsafeGetTensorImpl()->set_storage_offset(t.storage_offset());
      made.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides());
      return made;
    }
  const size_t bytes = t.storage().nbytes();
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, allocator.allocate(bytes), &allocator, true);
  if (bytes) std::memcpy(storage.mutable_data(), base, bytes);
  return with_storage(std::move(storage), c10::DispatchKey::CUDA, t);
}

// Every operation by the processor's kernel ------------------------------------------------------------------------------
// The host has to know the result of these before it can go on.
const std::set<std::string> WAITS = {
    "aten::_local_scalar_dense", "aten::nonzero",    "aten::equal",         "aten::masked_select", "aten::is_nonzero",
    "aten::_unique2",            "aten::unique_dim", "aten::_assert_async", "aten::linalg_eig",    "aten::bincount"};

// With these CUDA, too, takes an index or a scale from the processor.
bool may_mix(const std::string& name) {
  return name.rfind("aten::index", 0) == 0 || name.rfind("aten::_index_put_impl_", 0) == 0 || name == "aten::set_";
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::string name = schema.name();
  if (WAITS.count(name)) note_wait(name);
  const auto begin = stack->size() - schema.arguments().size();
  std::vector<Tensor> given, foreign;
  std::vector<std::pair<Tensor, Tensor>> pairs;  // a card's tensor, and what the processor's kernel sees of it
  auto take = [&](const Tensor& t) {
    if (!t.defined()) return t;
    if (t.device().type() == CUDA) {
      given.push_back(t);
      pairs.emplace_back(t, as_cpu(t));
      return pairs.back().second;
    }
    if (t.device().type() == c10::kCPU && (t.dim() > 0 || name == "aten::_foreach_copy_")) foreign.push_back(t);
    return t;
  };
  for (size_t i = begin; i < stack->size(); i++) {
    auto& value = (*stack)[i];
    if (value.isTensor()) {
      value = take(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& t : value.toTensorVector()) list.push_back(take(t));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (std::optional<Tensor> t : value.toOptionalTensorList())
        list.push_back(t ? std::optional<Tensor>(take(*t)) : t);
      value = list;
    } else if (value.isDevice() && value.toDevice().type() == CUDA) {
      value = c10::Device(c10::kCPU);
    } else if (value.isGenerator()) {
      value = processors(value.toGenerator());
    } else if (value.isNone() && schema.arguments()[i - begin].type()->str().find("Generator") != std::string::npos) {
      value = processors(std::nullopt);
    }
  }
  TORCH_CHECK(given.empty() || foreign.empty() || may_mix(name),
              "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (", name, ")");
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  for (auto& [card, seen] : pairs)  // outputs that the kernel has made larger
    if (!seen.sizes().equals(card.sizes()) && seen.storage().data() != card.storage().data()) {
      Tensor fresh = as_cuda(seen, {});
      card.unsafeGetTensorImpl()->set_storage_keep_dtype(fresh.storage());
      card.unsafeGetTensorImpl()->set_sizes_and_strides(fresh.sizes(), fresh.strides(), fresh.storage_offset());
    }
  auto back = [&](const Tensor& t) {
    if (!t.defined()) return t;
    for (auto& [card, seen] : pairs)
      if (seen.is_same(t)) return card;
    return as_cuda(t, given);
  };
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); i++) {
    auto& value = (*stack)[i];
    if (value.isTensor()) {
      value = back(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& t : value.toTensorVector()) list.push_back(back(t));
      value = list;
    }
  }
}

// What concerns memory itself --------------------------------------------------------------------------------------------
Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &allocator, c10::DispatchKeySet(c10::DispatchKey::CUDA),
                                   c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::CUDA), c10::dtype_or_default(dtype));
}

// PyTorch waits for a copy unless it is told not to; and for one from pageable memory CUDA itself does.
Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  const bool up = self.device().type() == CUDA && source.device().type() == c10::kCPU;
  const bool down = self.device().type() == c10::kCPU && source.device().type() == CUDA;
  if (up && source.numel() && !(non_blocking && is_pinned(source.storage().data()))) note_wait("copy to the card");
  if (down && !non_blocking) note_wait("copy from the card");
  as_cpu(self).copy_(as_cpu(source));
  return self;
}

const Tensor& resize_(const Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const size_t need = (impl->numel() + impl->storage_offset()) * self.element_size();
  if (self.storage().nbytes() < need) {
    auto data = allocator.allocate(need);
    std::memcpy(data.get(), self.storage().data(), self.storage().nbytes());
    impl->unsafe_storage().set_data_ptr(std::move(data));
    impl->unsafe_storage().set_nbytes(need);
  }
  return self;
}

Tensor& set_storage(Tensor& self, at::Storage source, c10::SymInt offset, c10::SymIntArrayRef size,
                    c10::SymIntArrayRef stride) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(source);
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                              offset.guard_int(__FILE__, __LINE__));
  return self;
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(source.storage());
  impl->set_sizes_and_strides(source.sizes(), source.strides(), source.storage_offset());
  return self;
}

Tensor as_strided(const Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                  std::optional<c10::SymInt> offset) {
  auto made = at::detail::make_tensor<c10::TensorImpl>(c10::TensorImpl::VIEW, c10::Storage(self.storage()), self.key_set(),
                                                       self.dtype());
  made.unsafeGetTensorImpl()->set_sizes_and_strides(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset ? offset->guard_int(__FILE__, __LINE__) : self.storage_offset());
  return made;
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("copy_", &copy_);
  m.impl("resize_", &resize_);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("as_strided", &as_strided);
  // Composed of others for devices that have no kernel of their own; a card has.
  for (const char* name : {"convolution", "convolution_backward", "native_group_norm", "native_group_norm_backward",
                           "native_layer_norm", "native_layer_norm_backward", "silu_backward", "mish_backward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

std::string report;

}  // namespace

extern "C" {

void pretend_limit(long long bytes) { limit = bytes; }
long long pretend_live() { return live; }
long long pretend_peak() { return peak; }

void pretend_reset() {
  peak = live.load();
  std::lock_guard<std::mutex> guard(lock);
  waits.clear();
}

// "what=how often;…" of the waits since `pretend_reset`.
const char* pretend_waits() {
  std::lock_guard<std::mutex> guard(lock);
  std::ostringstream out;
  for (const auto& [what, count] : waits) out << what << "=" << count << ";";
  report = out.str();
  return report.c_str();
}

}  // extern "C"
