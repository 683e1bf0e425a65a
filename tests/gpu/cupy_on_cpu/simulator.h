// CUDA C as C++ for the CPU: included before unmodified kernel source. The threads of a block are
// fibers (or plain calls, where no thread waits for another one); driver.cpp runs them.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector_types.h>
#include <vector_functions.h>
#undef __shared__
#undef __constant__
#undef __managed__
#undef __launch_bounds__
#undef __forceinline__
#undef __noinline__
#define CUDASIM 1
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __constant__ static
#define __managed__ static
#define __shared__ static /* "extern __shared__ T x[];" is rewritten by the loader */
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

using std::abs;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
namespace cudasim {
enum State : uint8_t { RUN, BLOCK_BAR, WARP_BAR, DONE };
struct Thread {
  uint3 tid;
  unsigned lin, lane, warp;
  State st;
  unsigned mask, tag, par;
};
extern Thread* cur;
extern uint3 bidx;
extern dim3 bdim, gdim;
extern unsigned char* dyn;
void yield();                                         // to the other threads of the block
unsigned char* slot(unsigned parity, unsigned lane);  // 64 bytes to hand to the lanes of cur's warp
template <class T, class F>
inline auto collective(unsigned mask, unsigned tag, T v, F read) {
  static_assert(sizeof(T) <= 64, "");
  Thread* f = cur;
  unsigned p = f->par;
  f->par ^= 1;
  if (!(mask >> f->lane & 1)) {
    fprintf(stderr, "cudasim: lane %u not in its own mask %08x\n", f->lane, mask);
    abort();
  }
  memcpy(slot(p, f->lane), &v, sizeof(T));
  f->mask = mask;
  f->tag = tag;
  f->st = WARP_BAR;
  yield();
  return read([&](unsigned l) {
    T r;
    memcpy(&r, slot(p, l & 31), sizeof(T));
    return r;
  });
}
template <class... A, size_t... I>
inline void call_(void (*f)(A...), void** a, std::index_sequence<I...>) {
  f(*(std::remove_cv_t<std::remove_reference_t<A>>*)a[I]...);
}
template <class... A>
void call(void (*f)(A...), void** args) {
  call_(f, args, std::index_sequence_for<A...>{});
}
template <class... A>
size_t sizes(void (*)(A...), size_t* out) {  // of a kernel's arguments, in bytes
  size_t all[] = {sizeof(A)..., 0};
  if (out) memcpy(out, all, sizeof...(A) * sizeof(size_t));
  return sizeof...(A);
}
}  // namespace cudasim
#define CUDASIM_EXPORT(name, plain, ...)                                                           \
  extern "C" void cudasim_call_##name(void** args) { cudasim::call(__VA_ARGS__, args); }           \
  extern "C" size_t cudasim_sizes_##name(size_t* out) { return cudasim::sizes(__VA_ARGS__, out); } \
  extern "C" const bool cudasim_plain_##name = plain;

#define threadIdx (cudasim::cur->tid)
#define blockIdx (cudasim::bidx)
#define blockDim (cudasim::bdim)
#define gridDim (cudasim::gdim)
static constexpr int warpSize = 32;
static inline void __syncthreads() {
  cudasim::cur->st = cudasim::BLOCK_BAR;
  cudasim::yield();
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
#define COLL(tag, T, v, expr) cudasim::collective(mask, tag, (T)(v), [&](auto at) { return expr; })
template <class T>
inline T __shfl_xor_sync(unsigned mask, T v, int m, int w = 32) {
  unsigned l = cudasim::cur->lane;
  return COLL(1, T, v, ((l ^ m) / w <= l / w) ? at(l ^ m) : v);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T v, unsigned d, int w = 32) {
  unsigned l = cudasim::cur->lane;
  return COLL(2, T, v, (l % w + d < (unsigned)w) ? at(l + d) : v);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T v, unsigned d, int w = 32) {
  unsigned l = cudasim::cur->lane;
  return COLL(3, T, v, (l % w >= d) ? at(l - d) : v);
}
template <class T>
inline T __shfl_sync(unsigned mask, T v, int s, int w = 32) {
  unsigned l = cudasim::cur->lane;
  return COLL(4, T, v, at(l / w * w + (unsigned)s % w));
}
static inline unsigned __ballot_sync(unsigned mask, int p) {
  return COLL(5, int, p, ([&] {
                unsigned r = 0;
                for (int i = 0; i < 32; i++)
                  if (mask >> i & 1 && at(i)) r |= 1u << i;
                return r;
              }()));
}
static inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
static inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, p) == m; }
static inline void __syncwarp(unsigned mask = ~0u) { COLL(6, int, 0, 0); }
template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
inline T atomicAdd(T* p, std::common_type_t<T> v) {
  T o = *p;
  *p = o + v;
  return o;
}
template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
inline T atomicMax(T* p, std::common_type_t<T> v) {
  T o = *p;
  if (v > o) *p = v;
  return o;
}
template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
inline T atomicMin(T* p, std::common_type_t<T> v) {
  T o = *p;
  if (v < o) *p = v;
  return o;
}
template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
inline T atomicExch(T* p, std::common_type_t<T> v) {
  T o = *p;
  *p = v;
  return o;
}
template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
inline T atomicCAS(T* p, std::common_type_t<T> c, std::common_type_t<T> v) {
  T o = *p;
  if (o == c) *p = v;
  return o;
}
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
template <class A, class B>
constexpr auto min(A a, B b) {
  return b < a ? b : a;
}
template <class A, class B>
constexpr auto max(A a, B b) {
  return a < b ? b : a;
}
#define __expf(x) expf(x) /* macros: glibc's math.h already declares __expf & co */
#define __logf(x) logf(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __fdividef(x, y) ((x) / (y))
#define __frcp_rn(x) (1.0f / (x))
#define __fmaf_rn(a, b, c) fmaf(a, b, c)
static inline void sincospi(double x, double* s, double* c) { sincos(M_PI * x, s, c); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline int __float_as_int(float f) {
  int i;
  memcpy(&i, &f, 4);
  return i;
}
static inline float __int_as_float(int i) {
  float f;
  memcpy(&f, &i, 4);
  return f;
}
static inline unsigned __float_as_uint(float f) { return (unsigned)__float_as_int(f); }
static inline float __uint_as_float(unsigned i) { return __int_as_float((int)i); }
static inline long long __double_as_longlong(double f) {
  long long i;
  memcpy(&i, &f, 8);
  return i;
}
static inline double __longlong_as_double(long long i) {
  double f;
  memcpy(&f, &i, 8);
  return f;
}
static inline double __hiloint2double(int hi, int lo) {
  return __longlong_as_double((long long)(((unsigned long long)(unsigned)hi << 32) | (unsigned)lo));
}
static inline int __double2hiint(double f) { return (int)(__double_as_longlong(f) >> 32); }
static inline int __double2loint(double f) { return (int)__double_as_longlong(f); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline double rsqrt(double x) { return 1 / sqrt(x); }
static inline double sinpi(double x) { return sin(M_PI * x); }
static inline double cospi(double x) { return cos(M_PI * x); }
static inline float exp10f_(float x) { return powf(10, x); }
static inline unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)((uint64_t)a * b >> 32);
}
