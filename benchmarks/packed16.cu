// A candidate, not measured by itself yet: 65,536 counters of 16 bits in shared memory, two to a word; who fills half of one moves
// that half to the totals.

typedef unsigned int u32;
typedef unsigned long long u64;
extern __shared__ u32 table[];

__device__ __forceinline__ void count_one(u32 code, u64* totals) {
  const u32 shift = (code & 1u) * 16, old = atomicAdd(&table[code >> 1], 1u << shift);
  if ((old >> shift & 0xFFFFu) != 0x7FFFu) return;
  atomicSub(&table[code >> 1], 0x8000u << shift);
  atomicAdd(&totals[code], 0x8000ull);
}

extern "C" __global__ void __launch_bounds__(1024, 1) packed16(const uint4* words, u64 n, u64* totals) {
  for (u32 i = threadIdx.x; i < 32768; i += 1024) table[i] = 0;
  __syncthreads();
  const u64 step = (u64)gridDim.x * 1024;
  for (u64 i = (u64)blockIdx.x * 1024 + threadIdx.x; i < n / 8; i += step) {
    const uint4 w = __ldcs(words + i);
    const u32 word[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      count_one(word[k] & 0xFFFFu, totals);
      count_one(word[k] >> 16, totals);
    }
  }
  __syncthreads();
  for (u32 i = threadIdx.x; i < 32768; i += 1024) {
    if (table[i] & 0xFFFFu) atomicAdd(&totals[2 * i], (u64)(table[i] & 0xFFFFu));
    if (table[i] >> 16) atomicAdd(&totals[2 * i + 1], (u64)(table[i] >> 16));
  }
}
