// Adds up the elements of one array of 32-bit floats, or the differences of two arrays of floats of any width,
// which are formed here and stored nowhere. Follows tally32.cu.
//
// A and B: kinds of the elements, 1 bytes looked up in `values`, 2 f16, 3 bf16, 4 f32; B 0: there is none.


__device__ __forceinline__ float half_to_float(u32 bits) {
  float value;
  asm("{.reg .b16 h; mov.b16 h, %1; cvt.f32.f16 %0, h;}" : "=f"(value) : "h"((u16)bits));
  return value;
}

template <int KIND> __device__ __forceinline__ u32 widen(u32 bits, const u32* values) {
  if (KIND == 1) return __ldg(values + bits);
  if (KIND == 2) return __float_as_uint(half_to_float(bits));
  if (KIND == 3) return bits << 16;
  return bits;
}

template <int KIND> __device__ __forceinline__ u32 at(const void* data, u64 i, const u32* values) {
  if (KIND == 1) return widen<1>(((const u8*)data)[i], values);
  if (KIND == 4) return ((const u32*)data)[i];
  return widen<KIND>(((const u16*)data)[i], values);
}

// Elements 4i to 4i + 3 of an array that lies at a multiple of four elements.
template <int KIND> __device__ __forceinline__ uint4 four(const void* data, u64 i, const u32* values) {
  if (KIND == 4) return __ldcs((const uint4*)data + i);
  if (KIND == 1) {
    const u32 w = __ldcs((const u32*)data + i);
    return {widen<1>(w & 255, values), widen<1>(w >> 8 & 255, values), widen<1>(w >> 16 & 255, values),
            widen<1>(w >> 24, values)};
  }
  const uint2 w = __ldcs((const uint2*)data + i);
  return {widen<KIND>(w.x & 0xFFFFu, values), widen<KIND>(w.x >> 16, values), widen<KIND>(w.y & 0xFFFFu, values),
          widen<KIND>(w.y >> 16, values)};
}

__device__ __forceinline__ u32 form(u32 a, u32 b) {
  if (B == 0) return a;
  const float difference = __fsub_rn(__uint_as_float(a), __uint_as_float(b));
  return difference == difference ? __float_as_uint(difference) : 0x7FC00000u;
}

struct Pair { uint4 a, b; };

__device__ __forceinline__ void add_four(const Pair& p, Seen& seen, u64* state) {
  add(form(p.a.x, p.b.x), seen, state);
  add(form(p.a.y, p.b.y), seen, state);
  add(form(p.a.z, p.b.z), seen, state);
  add(form(p.a.w, p.b.w), seen, state);
}

// a, b: n elements; the first `whole` of them, a multiple of four, are read four at a time. A block looks at its
// tables after every `tile` elements, at most TILE and a multiple of 4 * DEPTH * THREADS.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
form32(const void* a, const void* b, u64 n, u64 whole, u32 tile, const u32* values_a, const u32* values_b,
       u64* state) {
  Seen seen;
  begin(seen);
  const u64 fours = whole / 4, step = tile / 4;
  for (u64 start = blockIdx.x * step; start < fours; start += gridDim.x * step) {
    for (u64 i = start + threadIdx.x; i < start + step; i += DEPTH * THREADS) {
      Pair p[DEPTH];
#pragma unroll
      for (int k = 0; k < DEPTH; ++k)
        if (i + k * THREADS < fours) {
          p[k].a = four<A>(a, i + k * THREADS, values_a);
          if (B) p[k].b = four<B ? B : 4>(b, i + k * THREADS, values_b);
        }
#pragma unroll
      for (int k = 0; k < DEPTH; ++k)
        if (i + k * THREADS < fours) add_four(p[k], seen, state);
    }
    settle(state);
  }
  for (u64 start = whole + (u64)blockIdx.x * tile; start < n; start += (u64)gridDim.x * tile) {
    for (u64 i = start + threadIdx.x; i < start + tile && i < n; i += THREADS)
      add(form(at<A>(a, i, values_a), B ? at<B ? B : 4>(b, i, values_b) : 0), seen, state);
    settle(state);
  }
  finish(seen, state);
}
